"""The ICD-10-CM catalogue (package ``simple-icd-10-cm``, MIT): real descriptions of what hospitals treat."""

from __future__ import annotations

import csv
import sys
import zlib
from typing import Any

from ..errors import BadInput

HOSPITALS = (
    {"location": "New York", "name": "Hudson General", "region": "us-east"},
    {"location": "Chicago", "name": "Lakeside Medical", "region": "us-central"},
    {"location": "San Francisco", "name": "Golden Gate Clinic", "region": "us-west"},
)


def treatments() -> list[dict[str, Any]]:
    """About 98,000 rows (id, hospital_location, icd_code, description), shared out evenly by a hash of the code."""
    try:
        import simple_icd_10_cm as icd
    except ImportError as error:
        raise BadInput("the demo needs the ICD-10-CM catalogue", hint="pip install 'pgherd[demo]'") from error
    codes = (c for c in icd.get_all_codes(with_dots=True) if not icd.is_chapter_or_block(c))
    return [
        {
            "id": number,
            "hospital_location": HOSPITALS[zlib.crc32(code.encode()) % len(HOSPITALS)]["location"],
            "icd_code": code,
            "description": icd.get_description(code),
        }
        for number, code in enumerate(codes, start=1)
    ]


def write_csv() -> None:
    """Write the rows to stdout, for ``pgherd load``."""
    rows = treatments()
    writer = csv.DictWriter(sys.stdout, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


if __name__ == "__main__":
    write_csv()
