"""The hostile statements of ``tests/data/hostile.sql``, and the hospitals they are tried on."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pgherd
from pgherd import dialect, herdfile
from pgherd.llm.reader import ensure_reader
from pgherd.model.topology import Reader, Topology

FILE = Path(__file__).parent / "data" / "hostile.sql"
MARKS = {"New York": "mark-of-new-york", "Chicago": "mark-of-chicago", "San Francisco": "mark-of-san-francisco"}
REGIONS = {"New York": "us-east", "Chicago": "us-central", "San Francisco": "us-west"}
HOSPITALS = "".join(
    f"""
    CREATE TABLESPACE {space} WITH (replica_placement = '{{"num_replicas": 1, "placement_blocks": [
        {{"cloud": "local", "region": "{region}", "zone": "*", "min_num_replicas": 1}}]}}');
    """
    for space, region in (("new_york", "us-east"), ("chicago", "us-central"), ("san_francisco", "us-west"))
)
HOSPITALS += """
    CREATE TABLE hospital (location text PRIMARY KEY, name text NOT NULL, region text NOT NULL);
    SELECT create_reference_table('hospital');
    CREATE TABLE treatment (
        id bigint, hospital_location text REFERENCES hospital, icd_code text, description text, embedding vector(3),
        PRIMARY KEY (id, hospital_location)
    ) PARTITION BY LIST (hospital_location);
    CREATE TABLE treatment_new_york PARTITION OF treatment FOR VALUES IN ('New York') TABLESPACE new_york;
    CREATE TABLE treatment_chicago PARTITION OF treatment FOR VALUES IN ('Chicago') TABLESPACE chicago;
    CREATE TABLE treatment_san_francisco PARTITION OF treatment FOR VALUES IN ('San Francisco')
        TABLESPACE san_francisco;
"""


class Hostile(NamedTuple):
    """One statement, and the section it is in."""

    section: str
    text: str


def hostile(**names: str) -> list[Hostile]:
    """All statements, with these names for those in braces."""
    found, section = [], ""
    for line in FILE.read_text(encoding="utf-8").splitlines():
        if line.startswith("-- "):
            section = line[3:]
        elif line:
            for name, value in names.items():
                line = line.replace("{" + name + "}", value)
            found.append(Hostile(section, line))
    return found


def rows() -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """Hospitals and treatments; the description of each treatment bears the mark of its region."""
    places = [{"location": at, "name": f"Hospital of {at}", "region": region} for at, region in REGIONS.items()]
    treatments = [
        {
            "id": i,
            "hospital_location": at,
            "icd_code": f"R{i:02}",
            "description": f"{mark} {i}",
            "embedding": [1.0, i, 0],
        }
        for at, mark in MARKS.items()
        for i in range(1, 21)
    ]
    return places, treatments


async def make_hospitals(home: Path, region: str, tables: list[str] | None = None) -> tuple[Reader, Topology]:
    """Three hospitals with twenty treatments each in the herd of ``home``, and a reader of ``region``."""
    places, treatments = rows()
    async with pgherd.connect_async(home=home) as herd:
        await herd.execute(await herd.plan(dialect.parse(HOSPITALS)))
        await herd.table("hospital").insert(places)
        await herd.table("treatment").insert(treatments)
        reader = await ensure_reader(herd, home, herdfile.read(home).dbname, region, tables)
        return reader, herd.topology
