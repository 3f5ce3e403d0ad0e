"""raydist: Ray-distributed training and indexing for information retrieval.

The rooms are described in `raydist/README.md`. Importing this package loads neither torch nor ray.
"""

from raydist.errors import ArtifactError, ConfigError, DataError, JobError, RaydistError

__version__ = "0.1.0"

__all__ = [
    "ArtifactError",
    "ConfigError",
    "DataError",
    "JobError",
    "RaydistError",
    "__version__",
]
