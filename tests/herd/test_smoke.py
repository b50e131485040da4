from conftest import apply
from pgherd.sync import Herd


def test_rows_go_home_and_are_found_again(herd: Herd) -> None:
    apply(herd, "CREATE TABLE doc (id bigint PRIMARY KEY, v vector(2)); SELECT create_distributed_table('doc', 'id')")
    assert herd.table("doc").upsert([{"id": i, "v": [i, 1]} for i in range(20)]) == 20
    assert [h.row["id"] for h in herd.table("doc").search([7, 1], k=1, metric="l2")] == [7]
    assert herd.sql("SELECT count(*) FROM doc") == [{"count": 20}]
