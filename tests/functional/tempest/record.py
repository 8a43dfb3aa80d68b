"""``python record.py < STREAM``: what became of each test, as a line of JSON, as
soon as it is known. For the interpreter that has tempest."""

from __future__ import annotations

import datetime
import json
import sys

import subunit
import testtools

_ENDED = frozenset(("success", "fail", "skip", "xfail", "uxsuccess"))


class Recorder(testtools.StreamResult):
    def __init__(self) -> None:
        super().__init__()
        self._began: dict[str, datetime.datetime] = {}
        self._told: dict[str, bytes] = {}

    def status(self, test_id: str | None = None, test_status: str | None = None,
               file_name: str | None = None, file_bytes: bytes | None = None,
               timestamp: datetime.datetime | None = None, **_: object) -> None:
        if test_id is None:
            return
        if timestamp is not None and test_status == "inprogress":
            self._began.setdefault(test_id, timestamp)
        if file_bytes and file_name and file_name.startswith(("reason", "traceback")):
            self._told[test_id] = self._told.get(test_id, b"") + file_bytes
        if test_status in _ENDED:
            self._end(test_id, test_status, timestamp)

    def _end(self, name: str, status: str, at: datetime.datetime | None) -> None:
        began = self._began.pop(name, at)
        text = self._told.pop(name, b"").decode(errors="replace").strip()
        print(json.dumps({
            "name": name, "status": status, "why": text.rpartition("\n")[2][:500],
            "seconds": round((at - began).total_seconds(), 1) if at and began else 0.0}),
            flush=True)


if __name__ == "__main__":
    recorder = Recorder()
    recorder.startTestRun()
    subunit.ByteStreamToStreamResult(sys.stdin.buffer, non_subunit_name="stdout").run(recorder)
    recorder.stopTestRun()
