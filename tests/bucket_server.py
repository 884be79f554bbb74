"""An S3 server (moto) on loopback, with faults put between it and the client, and a small part of NASA's bucket."""

import contextlib
import json
import threading
import time
import urllib.request
from collections import Counter

import boto3
import numpy as np
from botocore.config import Config as BotoConfig
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

from bpsutils.bucket import BUCKET, COLUMNS, PREFIX
from bpsutils.images import write_image

PLATES = {"P242": "0.82,Fe,4", "P249": "0.3,Fe,24", "P278": "0.0,X-ray,4", "P284": "1.0,X-ray,24"}
WELLS = {"A6": 2, "C7": 8}  # images of each plate
NAMES = [
    f"{plate}_73665006707-{well}_{n:03d}_{n + 1:03d}_proj.tif"
    for plate in PLATES
    for well, count in WELLS.items()
    for n in range(count)
]
META = "\n".join([",".join(COLUMNS), *(f"{name},{PLATES[name[:4]]}" for name in NAMES), ""])


class Quiet(WSGIRequestHandler):
    def log(self, *_):
        pass


class Server:
    """Moto's S3 behind a door that counts GETs of each object and lets ``fault(name, count, body)`` change answers.

    A fault returns a status and a body, or None; with status 200 the headers stay those of the whole object.
    """

    def __init__(self):
        self.moto = DomainDispatcherApplication(create_backend_app)
        self.reset()
        self.http = make_server("127.0.0.1", 0, self, threaded=True, request_handler=Quiet)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def reset(self):
        self.gets, self.fault, self.delay_s = Counter(), None, 0.0

    def __call__(self, environ, start_response):
        name = environ["PATH_INFO"].rsplit("/", 1)[-1]
        if environ["REQUEST_METHOD"] != "GET":
            return self.moto(environ, start_response)
        self.gets[name] += 1
        time.sleep(self.delay_s)
        head = []
        body = b"".join(self.moto(environ, lambda *answer: head.extend(answer)))
        status, headers = head[:2]
        if self.fault:
            status, body = self.fault(name, self.gets[name], body) or (status, body)
        if not status.startswith("200"):
            headers = [("Content-Length", str(len(body)))]
        start_response(status, headers)
        return [body]


def make_images(folder):
    """The bytes of each object, in the real format; the folder keeps the files."""
    rng = np.random.default_rng(0)
    for name in NAMES:
        write_image(folder / name, rng.integers(200, 3000, (9, 13), dtype=np.uint16))
    return {name: (folder / name).read_bytes() for name in NAMES}


@contextlib.contextmanager
def serving(images):
    """A server with these images and ``META`` in a bucket that anybody may read."""
    server = Server()
    # Moto keeps its buckets in the process, so those of a server that was closed would still be there.
    urllib.request.urlopen(f"{server.url}/moto-api/reset", data=b"").close()
    client = boto3.client(
        "s3",
        endpoint_url=server.url,
        region_name="us-west-2",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=BotoConfig(s3={"addressing_style": "path"}),
    )
    client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
    allow = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{BUCKET}/*"}
    client.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps({"Version": "2012-10-17", "Statement": [allow]}))
    for name, body in {**images, "meta.csv": META.encode()}.items():
        client.put_object(Bucket=BUCKET, Key=f"{PREFIX}/{name}", Body=body)
    server.s3 = client
    yield server
    server.http.shutdown()
