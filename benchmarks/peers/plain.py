"""What one writes first: a route of FastAPI, pydantic in and out, and a dictionary."""

from fastapi import FastAPI
from pydantic import BaseModel

from benchmarks.peers.bare import read_table


class Asked(BaseModel):
    token: str
    catalog: str
    resource: str
    action: str
    target: str


class Answer(BaseModel):
    decision: str


app = FastAPI()
_table = read_table()


@app.post("/check")
async def check(asked: Asked) -> Answer:
    allowed = f"{asked.resource}:{asked.action}" in _table.get(asked.token, {}).get(asked.target, ())
    return Answer(decision="allow" if allowed else "deny")
