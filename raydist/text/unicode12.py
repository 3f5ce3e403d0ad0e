"""Where Unicode 12.1, which Lucene 9 follows, differs from the Unicode of today.

Recorded by probing Lucene 9.9's StandardTokenizer with every code point in 17 contexts: the code
points below behave like the character they are listed under (a character without a class of its
own, a comma, a pictograph, a format character, a Thai letter).
"""

from __future__ import annotations

from collections.abc import Iterator

_LIKE = {
    "\u0000": """
        b8 2e5-2eb 558 55a 55f 58a-58c 5c8-5c9 870-887 889-891 897-89f 8b5 8be-8d2 b53-b55 c3c
        c5c-c5d cdc-cdd cf3 d04 d81 ece 170d 1715 171f 180f 1abf-1af0 1b4c 1c89-1c8a 1dfa 208f
        209d-209f 2c2f 2c5f 31bb-31bf 4db6-4dbf 9ff0-9fff a708-a716 a7c0-a7c1 a7c7-a7dd a7e2
        a7f1-a7f6 a82c ab68-ab69 ab6c-ab6d 10570-1057a 1057c-1058a 1058c-10592 10594-10595
        10597-105a1 105a3-105b1 105b3-105b9 105bb-105bc 105c0-105f3 10780-10785 10787-107b0
        107b2-107bf 10940-10959 10d40-10d65 10d69-10d6d 10d6f-10d85 10e80-10ea9 10eab-10eac
        10eb0-10eb1 10ec2-10ec7 10ecb-10ecf 10ed9-10eee 10ef0-10eff 10f70-10f85 10fb0-10fc4
        11070-11075 110c2 11147 111ce-111cf 1123f-11241 11380-11389 1138b 1138e 11390-113b5
        113b7-113c0 113c2 113c5 113c7-113ca 113cc-113d3 113e1-113e2 11460-11461 116d0-116e3
        11740-11746 11900-11906 11909 1190c-11913 11915-11916 11918-11935 11937-11938
        1193b-11943 11950-11959 11ab0-11abf 11b0a 11b60-11b67 11bc0-11be0 11bf0-11bf9
        11db0-11ddb 11de0-11de9 11df0-11df1 11f00-11f10 11f12-11f3a 11f3e-11f42 11f50-11f5a
        11fb0 1246f 12475-1247f 12550-12686 12f90-12ff0 1342f 13439-13455 13460-143fa
        16100-16139 16a70-16abe 16ac0-16ac9 16d40-16d6c 16d70-16d79 16ea0-16eb8 16ebb-16ed3
        16fe2 16fe4 16ff0-16ff6 1aff0-1aff3 1aff5-1affb 1affd-1affe 1b11f-1b128 1b132 1b155
        1b168 1ccf0-1ccf9 1cf00-1cf2d 1cf30-1cf46 1d127-1d128 1d250-1d252 1d25b-1d25c 1d25f
        1d280-1d281 1d6a6 1df00-1df81 1df90-1df96 1dfcd-1dfff 1e030-1e06d 1e08f 1e290-1e2ae
        1e4d0-1e4f9 1e5d0-1e5fa 1e6c0-1e6de 1e6e0-1e6f5 1e6fe-1e6ff 1e7e0-1e7e6 1e7e8-1e7eb
        1e7ed-1e7ee 1e7f0-1e7fe 2a6d7-2a6df 2b735-2b73f 2b81e 2cea2-2cead 2ebf0-2ee5d
        30000-3134a 31350-33479
    """,
    ",": "fe10 fe14",
    "\u00a9": """
        2388 2605 2607-260d 260f-2610 2612 2616-2617 2619-261c 261e-261f 2621 2624-2625
        2627-2629 262b-262d 2630-2637 263b-263f 2641 2643-2647 2654-265e 2661-2662 2664 2667
        2669-267a 267c-267d 2680-2685 2690-2691 2698 269a 269d-269f 26a2-26a6 26a8-26a9
        26ac-26af 26b2-26bc 26bf-26c3 26c6-26c7 26c9-26cd 26d0 26d2 26d5-26e8 26eb-26ef 26f6
        26fb-26fc 26fe-2701 2703-2704 270e 2710-2711 2765-2767 1f000-1f003 1f005-1f02b
        1f030-1f093 1f0a0-1f0ae 1f0b1-1f0bf 1f0c1-1f0ce 1f0d1-1f0f5 1f10d-1f10f 1f12f
        1f16c-1f16f 1f1ad-1f1ae 1f260-1f265 1f322-1f323 1f394-1f395 1f398 1f39c-1f39d
        1f3f1-1f3f2 1f3f6 1f4fe 1f546-1f548 1f54f 1f568-1f56e 1f571-1f572 1f57b-1f586
        1f588-1f589 1f58e-1f58f 1f591-1f594 1f597-1f5a3 1f5a6-1f5a7 1f5a9-1f5b0 1f5b3-1f5bb
        1f5bd-1f5c1 1f5c5-1f5d0 1f5d4-1f5db 1f5df-1f5e0 1f5e2 1f5e4-1f5e7 1f5e9-1f5ee
        1f5f0-1f5f2 1f5f4-1f5f9 1f6c6-1f6ca 1f6d3-1f6d4 1f6e6-1f6e8 1f6ea 1f6f1-1f6f2
        1f774-1f77f 1f7d5-1f7db 1f7f1-1f7ff 1f8b0-1f8bb 1f8c0-1f8c1 1f8d0-1f8d8 1fa00-1fa57
        1fa60-1fa6d 1fb00-1fbff
    """,
    "\u00ad": "600-605 6dd 70f 8e2 110bd 110cd",
    "\u0e01": "19da",
}


def differences() -> Iterator[tuple[range, int]]:
    """Yields ranges of code points with the code point that they behave like."""
    for model, listed in _LIKE.items():
        for part in listed.split():
            first, _, last = part.partition("-")
            yield range(int(first, 16), int(last or first, 16) + 1), ord(model)
