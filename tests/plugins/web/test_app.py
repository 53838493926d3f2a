from __future__ import annotations

from fastapi.testclient import TestClient

from web.app import app


def test_it_has_both_pages_and_shows_nothing_of_itself_to_strangers() -> None:
    client = TestClient(app)
    assert client.get("/jobs/d/r/t/0/log").status_code == 401
    assert client.post("/artifacts", json={"artifact": "a/b/c:v1"}).status_code == 401
    assert [client.get(page).status_code for page in ("/docs", "/redoc", "/openapi.json")] == [404] * 3
