"""What to do where an object store, or the Hugging Face Hub, does not let somebody in."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

_REMEDIES = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; AWS_ENDPOINT_URL names "
    "another server than Amazon's",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS to the file of a service account, or run gcloud auth "
    "application-default login",
    "az": "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY; corpora on az:// need "
    "pip install adlfs",
    "hf": "set HF_TOKEN for what is not public; without a network, name a folder that you have",
}
_SPELLINGS = {"s3a": "s3", "gcs": "gs", "azure": "az", "abfs": "az", "abfss": "az", "adl": "az"}
_SIGNS = (
    r"(?i)token|credential|account|forbidden|denied|adlfs|connect|resolve|not known|offline|"
    r"\b40[13]\b"
)


def hint(uri: str, reason: object) -> str:
    """Returns what to append to a message that says why a URI cannot be reached."""
    scheme = urlsplit(uri).scheme
    remedy = _REMEDIES.get(_SPELLINGS.get(scheme, scheme))
    return f"; {remedy}" if remedy and re.search(_SIGNS, str(reason)) else ""
