"""A hub on loopback that the real huggingface_hub client pushes to and pulls from, and that can be told to fail.

It keeps repositories on disk: each is a folder with ``repo.json`` (commits, branches, tags, pull requests); the files'
contents are in ``objects/``, by their SHA-256. Only what the client asks for when models go in and out is here.
"""

import asyncio
import base64
import dataclasses
import hashlib
import json
import re
import shutil
import threading
from pathlib import Path

import yaml
from aiohttp import web

TOKENS = {"hf_writer": {"lightning-ham", "ada"}, "hf_reader": set(), "hf_ada": {"ada"}}
"""Each token, and the names in whose models it may read and write what is private."""

LARGE = (".safetensors", ".png")
"""Endings of the names of files that are kept as large ones are."""


@dataclasses.dataclass
class Fault:
    """What goes wrong with requests: an answer's ``status``, a delay, a broken connection, or changed bytes."""

    path: str
    """Regular expression that the path is searched for."""
    kind: str
    """``status``, ``page``, ``json``, ``slow``, ``drip``, ``cut``, ``flip``, ``shorter`` or ``headers``."""
    value: float = 0
    """The status, or the seconds."""
    method: str = "(GET|HEAD|POST|PUT)"
    times: int = 10**9
    """How often it happens yet."""
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    body: object = None
    """What is answered as JSON, or the message of a status."""


def git_hash(content):
    return hashlib.sha1(b"blob %d\0%s" % (len(content), content)).hexdigest()


def problem(status, message, code=None):
    return web.json_response({"error": message}, status=status, headers={"X-Error-Code": code} if code else {})


class HubServer:
    """The hub; ``url`` is its address, ``requests`` what it was asked, ``faults`` what is to fail."""

    def __init__(self, root):
        self.root = Path(root)
        self.faults = []
        self.requests = []
        app = web.Application(middlewares=[self.fail], client_max_size=1 << 30)
        app.add_routes(
            [
                web.post("/api/repos/create", self.create),
                web.post("/api/validate-yaml", self.validate_yaml),
                web.put("/lfs/{oid}", self.lfs_put),
                web.post("/lfs/{oid}/verify", self.lfs_verify),
            ]
        )
        for kind, prefix in (("models", ""), ("datasets", "/datasets")):
            repo, api = prefix + "/{owner}/{name}", f"/api/{kind}/{{owner}}/{{name}}"
            app.add_routes(
                [
                    web.get(api, self.info),
                    web.get(api + "/revision/{revision}", self.info),
                    web.get(api + "/refs", self.refs),
                    web.get(api + "/commits/{revision}", self.list_commits),
                    web.post(api + "/preupload/{revision}", self.preupload),
                    web.post(api + "/commit/{revision}", self.commit),
                    web.post(api + "/tag/{revision}", self.tag),
                    web.post(api + "/branch/{revision}", self.branch),
                    web.post(repo + ".git/info/lfs/objects/batch", self.lfs_batch),
                    web.get(repo + "/resolve/{revision}/{path:.+}", self.resolve),
                ]
            )
        self.loop = asyncio.new_event_loop()
        self.runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)

    def __enter__(self):
        self.thread.start()
        self._do(self.runner.setup())
        site = web.TCPSite(self.runner, "127.0.0.1", 0)
        self._do(site.start())
        self.url = "http://{}:{}".format(*self.runner.addresses[0][:2])
        return self

    def __exit__(self, *_):
        self._do(self.runner.cleanup())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()

    def _do(self, coroutine):
        asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(30)

    @property
    def variables(self):
        """The environment of a machine that knows this hub, and is told soon that it does not answer."""
        off = dict.fromkeys(("HF_HUB_DISABLE_XET", "HF_HUB_DISABLE_TELEMETRY"), "1")
        return off | {"HF_ENDPOINT": self.url, "HF_HUB_ETAG_TIMEOUT": "1"}

    # What a test may ask for.

    def clear(self):
        """Forget everything."""
        self.faults.clear()
        self.requests.clear()
        shutil.rmtree(self.root)
        self.root.mkdir()

    def fails(self, path, kind, value=0, **options):
        self.faults.append(Fault(path, kind, value, **options))

    def commits(self, repo_id):
        """The commits of the main branch, the first one first, each with its files and their contents."""
        repo = self.load(repo_id)
        found, oid = [], repo["refs"]["main"]
        while oid:
            found.insert(0, repo["commits"][oid] | {"oid": oid})
            oid = repo["commits"][oid]["parent"]
        return found

    def content(self, file):
        return (self.root / "objects" / file["sha256"]).read_bytes()

    def files(self, repo_id, revision="main"):
        """The contents of the files of a revision."""
        repo = self.load(repo_id)
        tree = repo["commits"][repo["refs"].get(revision) or repo["tags"][revision]]["tree"]
        return {path: self.content(file) for path, file in tree.items()}

    # Storage.

    def load(self, repo_id):
        return json.loads((self.root / repo_id / "repo.json").read_text())

    def store(self, repo_id, repo):
        (self.root / repo_id).mkdir(parents=True, exist_ok=True)
        (self.root / repo_id / "repo.json").write_text(json.dumps(repo))

    def keep(self, content):
        sha256 = hashlib.sha256(content).hexdigest()
        (self.root / "objects").mkdir(parents=True, exist_ok=True)
        (self.root / "objects" / sha256).write_bytes(content)
        return sha256

    def add_commit(self, repo, branch, tree, message):
        parent = repo["refs"].get(branch) or (repo["refs"]["main"] if branch.startswith("refs/pr/") else None)
        commit = {"tree": tree, "parent": parent, "message": message, "number": len(repo["commits"])}
        oid = hashlib.sha1(json.dumps(commit).encode()).hexdigest()
        repo["commits"][oid] = commit
        repo["refs"][branch] = oid
        return oid

    def write(self, repo_id, files, private=False):
        """Make a model of these files, by their names, or a further commit of it: what no honest push would make."""
        try:
            repo = self.load(repo_id)
        except FileNotFoundError:
            repo = {"private": private, "commits": {}, "refs": {}, "tags": {}}
        tree = {path: self.entry(path, content) for path, content in files.items()}
        oid = self.add_commit(repo, "main", tree, "written")
        self.store(repo_id, repo)
        return oid

    def entry(self, path, content):
        large = path.endswith(LARGE)
        return {"size": len(content), "git": git_hash(content), "sha256": self.keep(content), "large": large}

    # Faults.

    @web.middleware
    async def fail(self, request, handler):
        self.requests.append((request.method, request.path))
        fault = self._fault(request)
        if fault is None:
            return await handler(request)
        if fault.kind == "status":
            answer = problem(int(fault.value), fault.body or "told to fail")
            answer.headers.update(fault.headers)
            return answer
        if fault.kind == "page":
            return web.Response(text="<html>Log in to this network</html>", content_type="text/html")
        if fault.kind == "json":
            return web.json_response(fault.body)
        if fault.kind == "slow":
            await asyncio.sleep(fault.value)
            return await handler(request)
        if fault.kind == "cut" and request.method != "GET":
            request.transport.abort()
            return problem(500, "cut")
        answer = await handler(request)
        if fault.kind == "headers":
            answer.headers.update(fault.headers)
            return answer
        body = bytes(answer.body)
        if fault.kind == "cut":
            cut = web.StreamResponse(headers={k: v for k, v in answer.headers.items() if k != "Content-Type"})
            cut.content_length = len(body)
            await cut.prepare(request)
            await cut.write(body[: len(body) // 2])
            request.transport.close()
            return cut
        if fault.kind == "drip":
            drip = web.StreamResponse(headers=answer.headers)
            await drip.prepare(request)
            for start in range(0, len(body), 100):
                await drip.write(body[start : start + 100])
                await asyncio.sleep(fault.value)
            return drip
        answer.body = {"flip": body[:-1] + bytes([body[-1] ^ 1]), "shorter": body[:-7]}[fault.kind]
        return answer

    def _fault(self, request):
        for fault in self.faults:
            if fault.times > 0 and re.fullmatch(fault.method, request.method) and re.search(fault.path, request.path):
                fault.times -= 1
                return fault
        return None

    # Who may do what.

    def _owner(self, request):
        """The names that the request's token stands for, None without one."""
        header = request.headers.get("Authorization", "")
        token = header.removeprefix("Bearer ")
        if not header or header.startswith("Basic "):  # the latter is for what stands before a hub, such as a proxy
            return None
        if token not in TOKENS:
            raise web.HTTPUnauthorized(
                text=json.dumps({"error": "Invalid credentials in Authorization header"}),
                content_type="application/json",
            )
        return TOKENS[token]

    def _open(self, request, to_write=False):
        """The repository of a request and its name, or the answer that refuses it."""
        owner, name = request.match_info["owner"], request.match_info["name"]
        names = self._owner(request)
        is_dataset = request.path.startswith(("/datasets/", "/api/datasets/"))
        repo_id = f"{'datasets/' if is_dataset else ''}{owner}/{name}"
        try:
            repo = self.load(repo_id)
        except FileNotFoundError:
            repo = None
        if repo is None or (repo["private"] and owner not in (names or ())):
            status = 401 if names is None else 404
            return None, problem(status, "Repository not found", "RepoNotFound")
        if to_write and owner not in (names or ()) and not request.query.get("create_pr"):
            return None, problem(401 if names is None else 403, "You have no right to write to this model")
        return (repo_id, repo), None

    @staticmethod
    def _commit_of(repo, revision):
        return repo["refs"].get(revision) or repo["tags"].get(revision) or (revision in repo["commits"] and revision)

    # Answers.

    async def create(self, request):
        asked = await request.json()
        names = self._owner(request)
        if names is None:
            return problem(401, "You must be logged in")
        repo_id = f"{'datasets/' if asked.get('type') == 'dataset' else ''}{asked['organization']}/{asked['name']}"
        if asked["organization"] not in names:
            return problem(403, f"You don't have the rights to create a model under {asked['organization']}")
        if (self.root / repo_id).exists():
            return web.json_response({"error": "You already created it", "url": f"{self.url}/{repo_id}"}, status=409)
        self.write(repo_id, {".gitattributes": b"*.safetensors filter=lfs\n"}, asked.get("visibility") == "private")
        return web.json_response({"url": f"{self.url}/{repo_id}"})

    async def validate_yaml(self, request):
        """Refuse a card without a licence that it knows, as the Hub does; of a dataset, without configurations, too."""
        asked = await request.json()
        metadata = yaml.safe_load(asked["content"].split("---\n")[1])
        errors = [] if metadata.get("license") == "apache-2.0" else ['"license" must be one of [apache-2.0, ...]']
        errors += ["configs"] if asked["repoType"] == "dataset" and not metadata.get("configs") else []
        found = {"errors": [{"message": error} for error in errors], "warnings": []}
        return web.json_response(found, status=400 if errors else 200)

    async def info(self, request):
        opened, refused = self._open(request)
        if refused:
            return refused
        repo_id, repo = opened
        commit = self._commit_of(repo, request.match_info.get("revision", "main"))
        if not commit:
            return problem(404, "Invalid rev id", "RevisionNotFound")
        siblings = []
        for path, file in repo["commits"][commit]["tree"].items():
            sibling = {"rfilename": path}
            if request.query.get("blobs"):
                sibling |= {"size": file["size"], "blobId": file["git"]}
                if file["large"]:
                    sibling["lfs"] = {"sha256": file["sha256"], "size": file["size"], "pointerSize": 130}
            siblings.append(sibling)
        info = {"id": repo_id, "sha": commit, "private": repo["private"], "siblings": siblings, "tags": []}
        return web.json_response(info)

    async def refs(self, request):
        opened, refused = self._open(request)
        if refused:
            return refused
        _, repo = opened
        heads = {name: oid for name, oid in repo["refs"].items() if not name.startswith("refs/pr/")}

        def listed(refs, prefix):
            return [{"name": name, "ref": f"{prefix}{name}", "targetCommit": oid} for name, oid in refs.items()]

        return web.json_response(
            {"branches": listed(heads, "refs/heads/"), "tags": listed(repo["tags"], "refs/tags/"), "converts": []}
        )

    async def list_commits(self, request):
        opened, refused = self._open(request)
        if refused:
            return refused
        found = [
            {"id": commit["oid"], "title": commit["message"], "message": "", "date": "2026-01-01T00:00:00.000Z"}
            for commit in reversed(self.commits(opened[0]))
        ]
        return web.json_response([commit | {"authors": []} for commit in found])

    async def preupload(self, request):
        opened, refused = self._open(request, to_write=True)
        if refused:
            return refused
        _, repo = opened
        tree = repo["commits"][self._commit_of(repo, request.match_info["revision"])]["tree"]
        files = []
        for file in (await request.json())["files"]:
            large = file["path"].endswith(LARGE)
            known = tree.get(file["path"])
            oid = known and known["sha256" if large else "git"]
            mode = "lfs" if large else "regular"
            files.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return web.json_response({"files": files})

    async def lfs_batch(self, request):
        objects = []
        for item in (await request.json())["objects"]:
            found = {"oid": item["oid"], "size": item["size"]}
            if not (self.root / "objects" / item["oid"]).exists():
                href = f"{self.url}/lfs/{item['oid']}"
                found["actions"] = {"upload": {"href": href}, "verify": {"href": f"{href}/verify"}}
            objects.append(found)
        return web.json_response({"transfer": "basic", "objects": objects})

    async def lfs_put(self, request):
        content = await request.read()
        if hashlib.sha256(content).hexdigest() != request.match_info["oid"]:
            return problem(400, "not of this hash")
        self.keep(content)
        return web.Response()

    async def lfs_verify(self, request):
        stored = self.root / "objects" / request.match_info["oid"]
        good = stored.exists() and stored.stat().st_size == (await request.json())["size"]
        return web.Response() if good else problem(404, "not uploaded")

    async def commit(self, request):
        opened, refused = self._open(request, to_write=True)
        if refused:
            return refused
        repo_id, repo = opened
        branch = request.match_info["revision"]
        base = self._commit_of(repo, branch)
        tree, message = dict(repo["commits"][base]["tree"]), ""
        for line in (await request.read()).splitlines():
            operation = json.loads(line)
            key, value = operation["key"], operation["value"]
            if key == "header":
                message = value["summary"]
                if value.get("parentCommit", base) != base:
                    return problem(412, "A commit has happened since. Please refresh and try again.")
            elif key == "file":
                tree[value["path"]] = self.entry(value["path"], base64.b64decode(value["content"]))
            elif key == "lfsFile":
                tree[value["path"]] = self.entry(value["path"], self.content({"sha256": value["oid"]}))
            elif key == "deletedFile":
                del tree[value["path"]]
        answer = {}
        if request.query.get("create_pr"):
            number = 1 + sum(name.startswith("refs/pr/") for name in repo["refs"])
            branch = f"refs/pr/{number}"
            answer["pullRequestUrl"] = f"{self.url}/{repo_id}/discussions/{number}"
        oid = self.add_commit(repo, branch, tree, message)
        self.store(repo_id, repo)
        return web.json_response(answer | {"commitOid": oid, "commitUrl": f"{self.url}/{repo_id}/commit/{oid}"})

    async def tag(self, request):
        opened, refused = self._open(request, to_write=True)
        if refused:
            return refused
        repo_id, repo = opened
        name = (await request.json())["tag"]
        if name in repo["tags"]:
            return problem(409, "Tag exists")
        repo["tags"][name] = self._commit_of(repo, request.match_info["revision"])
        self.store(repo_id, repo)
        return web.json_response({})

    async def branch(self, request):
        opened, refused = self._open(request, to_write=True)
        if refused:
            return refused
        repo_id, repo = opened
        name = request.match_info["revision"]
        if name in repo["refs"]:
            return problem(409, "Branch exists")
        repo["refs"][name] = repo["refs"]["main"]
        self.store(repo_id, repo)
        return web.json_response({})

    async def resolve(self, request):
        opened, refused = self._open(request)
        if refused:
            return refused
        _, repo = opened
        commit = self._commit_of(repo, request.match_info["revision"])
        if not commit:
            return problem(404, "Invalid rev id", "RevisionNotFound")
        file = repo["commits"][commit]["tree"].get(request.match_info["path"])
        if file is None:
            return problem(404, "Entry not found", "EntryNotFound")
        headers = {"X-Repo-Commit": commit, "ETag": f'"{file["git"]}"', "Accept-Ranges": "bytes"}
        if file["large"]:
            headers |= {"X-Linked-Etag": f'"{file["sha256"]}"', "X-Linked-Size": str(file["size"])}
        content = self.content(file)
        wanted = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        if wanted:
            start = int(wanted[1])
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            return web.Response(status=206, body=content[start:], headers=headers)
        return web.Response(body=content, headers=headers)
