#!/usr/bin/env python3
"""mkimage.py out.tar name:tag binary entrypoint-path : docker-archive holding one static binary"""
import sys, io, json, tarfile, hashlib
out, tag, binary, path = sys.argv[1:5]
def add(t, name, data, mode=0o644, typ=tarfile.REGTYPE):
    ti = tarfile.TarInfo(name); ti.mode = mode; ti.size = len(data); ti.type = typ; ti.mtime = 0
    t.addfile(ti, io.BytesIO(data) if typ == tarfile.REGTYPE else None)
lb = io.BytesIO()
with tarfile.open(fileobj=lb, mode="w") as t:
    add(t, path.lstrip("/"), open(binary, "rb").read(), 0o755)
layer = lb.getvalue(); d = hashlib.sha256(layer).hexdigest()
cfg = json.dumps({"architecture": "amd64", "os": "linux", "created": "1970-01-01T00:00:00Z",
  "config": {"Entrypoint": [path], "Env": ["PATH=/"], "WorkingDir": "/"},
  "rootfs": {"type": "layers", "diff_ids": ["sha256:" + d]},
  "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "mkimage"}]}).encode()
c = hashlib.sha256(cfg).hexdigest()
with tarfile.open(out, "w") as t:
    add(t, c + ".json", cfg)
    add(t, d + "/layer.tar", layer)
    add(t, "manifest.json", json.dumps([{"Config": c + ".json", "RepoTags": tag.split(","), "Layers": [d + "/layer.tar"]}]).encode())
