"""A loopback server that speaks LangSmith as its own client does: ingestion, queries, datasets.

Nothing of the client is replaced: what a test reads is what a real client sent, decoded. What
the server does not know, or what does not fit, fails the test when the server is left.
"""

from __future__ import annotations

import email
import http.server
import json
import threading
import traceback
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, ClassVar, Self
from urllib.parse import parse_qs, urlsplit

import zstandard
from langsmith import Client

from tests.support.servers.langsmith_filters import Record, matches

_TENANT = str(uuid.uuid4())
_INFO = {
    "version": "0.99.0",
    "tenant_id": _TENANT,
    "instance_flags": {"zstd_compression_enabled": True},
    # With one key missing the client's sender dies, and flush() never returns.
    "batch_ingest_config": {
        "use_multipart_endpoint": True,
        "size_limit": 100,
        "size_limit_bytes": 20_971_520,
        "scale_up_nthreads_limit": 1,
        "scale_up_qsize_trigger": 1000,
        "scale_down_nempty_trigger": 4,
    },
}
_FIELDS = frozenset({"inputs", "outputs", "extra", "events", "error", "serialized"})


class LangSmithServer:
    """LangSmith on this machine, for one test.

    Args:
        page: Most runs, feedback or examples that one request gets.
        compressed: Whether it tells clients to compress what they send.
    """

    def __init__(self, *, page: int = 100, compressed: bool = True) -> None:
        self.page = page
        self.requests: list[tuple[str, str]] = []
        """Method and path (with its query) of every request."""

        self.parts: list[str] = []
        """Names of all parts of all multipart bodies, in the order they came."""

        self.problems: list[str] = []
        self.projects: dict[str, Record] = {}
        self.datasets: dict[str, Record] = {}
        self.examples: dict[str, Record] = {}
        self.feedback: list[Record] = []
        self._runs: dict[str, Record] = {}
        self._lock = threading.RLock()
        flags = {"zstd_compression_enabled": compressed}
        self.info: Record = {**_INFO, "instance_flags": flags}
        self._http = _HTTP(("127.0.0.1", 0), self._handler())

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        host, port = self._http.server_address[:2]
        self.client = Client(api_url=f"http://{host!s}:{port}", api_key="test")
        return self

    def __exit__(self, kind: object, *args: object) -> None:
        self.client.flush()
        self.client.close()
        self._http.shutdown()
        self._http.server_close()
        if kind is None:
            assert not self.problems, "\n".join(self.problems)

    @property
    def runs(self) -> list[Record]:
        """All runs, as the client sent them, each before its children."""
        self.client.flush()
        with self._lock:
            return sorted(self._runs.values(), key=lambda run: run["dotted_order"])

    @property
    def roots(self) -> list[Record]:
        return [run for run in self.runs if run.get("parent_run_id") is None]

    def children(self, run: Record) -> list[Record]:
        return [each for each in self.runs if each.get("parent_run_id") == run["id"]]

    def tree(self, root: Record | None = None) -> list[tuple[int, Record]]:
        """A run and all runs beneath it, each with its depth; of the only root if none is given."""
        if root is None:
            [root] = self.roots
        beneath: list[tuple[int, Record]] = [(0, root)]
        for child in self.children(root):
            beneath += [(depth + 1, run) for depth, run in self.tree(child)]
        return beneath

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def _serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, out = outer._respond(self, body)
                text = json.dumps(out).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _serve  # noqa: N815

            def log_message(self, *args: object) -> None:
                pass

        return Handler

    def _respond(self, asked: http.server.BaseHTTPRequestHandler, body: bytes) -> tuple[int, Any]:
        url = urlsplit(asked.path)
        self.requests.append((asked.command, asked.path))
        if asked.headers.get("Content-Encoding") == "zstd":
            # The client streams its frame, whose head names no size.
            body = zstandard.ZstdDecompressor().decompressobj().decompress(body)
        try:
            with self._lock:
                if url.path == "/runs/multipart":
                    self._ingest(asked.headers["Content-Type"], body)
                    return 202, {}
                route, item = _route(asked.command, url.path)
                assert route is not None, "no such route"
                sent = json.loads(body) if body else {}
                return route(self, item, sent, parse_qs(url.query))
        except Exception:  # noqa: BLE001  (a test must hear of it, whatever the client makes of it)
            self.problems.append(f"{asked.command} {asked.path}\n{traceback.format_exc()}")
            return 404, {"detail": "see LangSmithServer.problems"}

    # What is sent.

    def _ingest(self, content_type: str, body: bytes) -> None:
        head = b"Content-Type: " + content_type.encode() + b"\r\n\r\n"
        for part in email.message_from_bytes(head + body).walk():
            if part.is_multipart():
                continue
            name = str(part.get_param("name", header="content-disposition"))
            payload = part.get_payload(decode=True)
            assert isinstance(payload, bytes), name
            assert part.get_content_type() == "application/json", (name, part.get_content_type())
            self.parts.append(name)
            self._part(name, json.loads(payload))

    def _part(self, name: str, data: Any) -> None:
        kind, item, *field = name.split(".")
        if kind == "feedback":
            assert data["id"] == item, name
            self._keep_feedback(data)
        elif field:
            assert kind in {"post", "patch"}, name
            assert len(field) == 1, name
            assert field[0] in _FIELDS, name
            self._merge(item, {field[0]: data})
        else:
            assert kind in {"post", "patch"}, name
            assert data["id"] == item, name
            self._merge(item, data)

    def _merge(self, item: str, data: Record) -> None:
        """Add to a run; what a later part does not know (null) does not undo an earlier one."""
        run = self._runs.setdefault(item, {"id": item})
        run |= {key: value for key, value in data.items() if value is not None}
        if name := run.get("session_name"):
            run["session_id"] = self._project(name)["id"]
        assert uuid.UUID(run["id"])

    def _project(self, name: str, **given: Any) -> Record:
        for project in self.projects.values():
            if project["name"] == name:
                return project
        project = {"id": str(uuid.uuid4()), "tenant_id": _TENANT, "reference_dataset_id": None}
        project |= {"start_time": _now(), "extra": {}, "name": name, **given}
        return self.projects.setdefault(str(project["id"]), project)

    def _keep_feedback(self, data: Record) -> None:
        trace = self._runs.get(data.get("run_id") or "", {}).get("trace_id")
        self.feedback.append(
            {"created_at": _now(), "modified_at": _now(), "trace_id": trace, **data}
        )

    # What is read.

    def _whole(self, run: Record) -> Record:
        """A run as LangSmith returns it."""
        status = "error" if run.get("error") else "success" if run.get("end_time") else "pending"
        stats: dict[str, Record] = {}
        for given in self.feedback:
            if given.get("run_id") == run["id"] and given.get("score") is not None:
                n, mean = (stats.get(given["key"]) or {"n": 0, "avg": 0.0}).values()
                mean = (n * mean + given["score"]) / (n + 1)
                stats[given["key"]] = {"n": n + 1, "avg": mean}
        return {"status": status, **run, "feedback_stats": stats}

    def _query_runs(self, _: str, sent: Record, query: Any) -> tuple[int, Any]:
        plain = {"session", "id", "trace", "parent_run", "run_type", "reference_example"}
        known = plain | {"is_root", "error", "start_time", "select", "limit", "cursor"}
        known |= {"filter", "trace_filter", "tree_filter"}
        assert sent.keys() <= known, sent.keys() - known
        found = [run for run in map(self._whole, self._runs.values()) if self._is_asked(run, sent)]
        found.sort(key=lambda run: str(run["start_time"]), reverse=True)  # newest first
        start = int(sent.get("cursor") or 0)
        end = start + min(self.page, sent.get("limit") or self.page)
        select = {"id", *sent["select"]}
        assert "feedback" not in select
        page = [{k: v for k, v in run.items() if k in select} for run in found[start:end]]
        return 200, {"runs": page, "cursors": {"next": str(end) if end < len(found) else None}}

    def _is_asked(self, run: Record, sent: Record) -> bool:
        stored = {"session": "session_id", "trace": "trace_id", "parent_run": "parent_run_id"}
        stored["reference_example"] = "reference_example_id"
        for name in ("session", "id", "trace", "parent_run", "run_type", "reference_example"):
            wanted = sent.get(name)
            allowed = wanted if isinstance(wanted, list) else [wanted]
            if wanted is not None and run.get(stored.get(name, name)) not in allowed:
                return False
        if "is_root" in sent and sent["is_root"] != (run.get("parent_run_id") is None):
            return False
        if "error" in sent and sent["error"] != (run["status"] == "error"):
            return False
        if "start_time" in sent and _time(run["start_time"]) < _time(sent["start_time"]):
            return False
        places: dict[str, Callable[[], list[Record]]] = {
            "filter": lambda: [run],
            "trace_filter": lambda: [self._runs[run["trace_id"]]],
            "tree_filter": lambda: self._trace(run["trace_id"]),
        }
        return all(
            any(matches(sent[name], self._whole(each), self.feedback) for each in runs())
            for name, runs in places.items()
            if name in sent
        )

    def _trace(self, item: str) -> list[Record]:
        return [run for run in self._runs.values() if run["trace_id"] == item]

    def _read_run(self, item: str, sent: Any, query: Any) -> tuple[int, Any]:
        run = self._runs.get(item)
        return (404, {"detail": "no such run"}) if run is None else (200, self._whole(run))

    def _post_run(self, _: str, sent: Record, query: Any) -> tuple[int, Any]:
        self._merge(sent["id"], sent)
        return 202, {}

    def _patch_run(self, item: str, sent: Record, query: Any) -> tuple[int, Any]:
        self._merge(item, sent)
        return 202, {}

    def _post_feedback(self, _: str, sent: Record, query: Any) -> tuple[int, Any]:
        self._keep_feedback(sent)
        return 200, sent

    def _list_feedback(self, _: str, sent: Any, query: dict[str, list[str]]) -> tuple[int, Any]:
        found = self.feedback
        for name, place in (("run", "run_id"), ("key", "key")):
            if name in query:
                found = [each for each in found if each.get(place) in query[name]]
        return 200, self._page(found, query, {"run", "key"})

    def _page(
        self, found: list[Record], query: dict[str, list[str]], known: set[str]
    ) -> list[Record]:
        assert query.keys() <= known | {"offset", "limit"}, query
        offset, limit = (int(query.get(k, ["0"])[0]) for k in ("offset", "limit"))
        assert 1 <= limit <= 100, "LangSmith gives at most 100"
        return found[offset : offset + limit]

    def _list_projects(self, _: str, sent: Any, query: dict[str, list[str]]) -> tuple[int, Any]:
        found = list(self.projects.values())
        for name, place in (("name", "name"), ("reference_dataset", "reference_dataset_id")):
            if name in query:
                found = [each for each in found if each[place] in query[name]]
        # The client asks for any one project to learn its tenant.
        if "name" not in query and query.get("limit") == ["1"] and not found:
            return 200, [self._project("default")]
        known = {"name", "reference_dataset", "include_stats"}
        return 200, self._page(found, query, known)

    def _read_project(self, item: str, sent: Any, query: Any) -> tuple[int, Any]:
        return 200, self.projects[item]

    def _create_project(self, _: str, sent: Record, query: Any) -> tuple[int, Any]:
        shown = {k: sent.get(k) for k in ("id", "description", "extra", "reference_dataset_id")}
        if any(each["name"] == sent["name"] for each in self.projects.values()):
            return 409, {"detail": "the name is taken"}
        return 200, self._project(sent["name"], **shown)

    def _update_project(self, item: str, sent: Record, query: Any) -> tuple[int, Any]:
        self.projects[item] |= {key: value for key, value in sent.items() if value is not None}
        return 200, self.projects[item]

    def _create_dataset(self, _: str, sent: Record, query: Any) -> tuple[int, Any]:
        dataset = {"id": str(uuid.uuid4()), "created_at": _now(), **sent}
        return 200, self.datasets.setdefault(str(dataset["id"]), dataset)

    def _counted(self, dataset: Record) -> Record:
        of_it = [each for each in self.examples.values() if each["dataset_id"] == dataset["id"]]
        return {**dataset, "example_count": len(of_it)}

    def _list_datasets(self, _: str, sent: Any, query: dict[str, list[str]]) -> tuple[int, Any]:
        found = [self._counted(each) for each in self.datasets.values()]
        if "name" in query:
            found = [each for each in found if each["name"] in query["name"]]
        return 200, self._page(found, query, {"name"})

    def _read_dataset(self, item: str, sent: Any, query: Any) -> tuple[int, Any]:
        if item not in self.datasets:
            return 404, {"detail": "no such dataset"}
        return 200, self._counted(self.datasets[item])

    def _create_examples(self, _: str, sent: Any, query: Any) -> tuple[int, Any]:
        created = []
        for given in sent if isinstance(sent, list) else [sent]:
            example: Record = {"id": str(uuid.uuid4()), "created_at": _now(), "modified_at": _now()}
            example |= {key: value for key, value in given.items() if value is not None}
            example["outputs"] = example.pop("reference_outputs", example.get("outputs"))
            created.append(self.examples.setdefault(str(example["id"]), example))
        return 200, created if isinstance(sent, list) else created[0]

    def _list_examples(self, _: str, sent: Any, query: dict[str, list[str]]) -> tuple[int, Any]:
        found = list(self.examples.values())
        for name, place in (("dataset", "dataset_id"), ("id", "id")):
            if name in query:
                found = [each for each in found if each[place] in query[name]]
        known = {"dataset", "id", "inline_s3_urls", "as_of", "select"}
        return 200, self._page(found, query, known)

    def _read_info(self, _: str, sent: Any, query: Any) -> tuple[int, Any]:
        return 200, self.info

    _routes: ClassVar[dict[tuple[str, str], Callable[..., tuple[int, Any]]]] = {
        ("GET", "/info"): _read_info,
        ("POST", "/runs"): _post_run,
        ("PATCH", "/runs/*"): _patch_run,
        ("GET", "/runs/*"): _read_run,
        ("POST", "/runs/query"): _query_runs,
        ("POST", "/feedback"): _post_feedback,
        ("GET", "/feedback"): _list_feedback,
        ("GET", "/sessions"): _list_projects,
        ("POST", "/sessions"): _create_project,
        ("GET", "/sessions/*"): _read_project,
        ("PATCH", "/sessions/*"): _update_project,
        ("GET", "/datasets"): _list_datasets,
        ("POST", "/datasets"): _create_dataset,
        ("GET", "/datasets/*"): _read_dataset,
        ("GET", "/examples"): _list_examples,
        ("POST", "/examples"): _create_examples,
        ("POST", "/examples/bulk"): _create_examples,
    }


class _HTTP(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256


def _route(method: str, path: str) -> tuple[Callable[..., tuple[int, Any]] | None, str]:
    routes = LangSmithServer._routes
    if (method, path) in routes:
        return routes[method, path], ""
    room, _, item = path.rpartition("/")
    return routes.get((method, f"{room}/*")), item


def _now() -> str:
    return datetime.now(UTC).isoformat()


def _time(text: str) -> datetime:
    when = datetime.fromisoformat(text)
    return when if when.tzinfo else when.replace(tzinfo=UTC)
