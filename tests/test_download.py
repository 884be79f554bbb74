"""Download against a real S3 server (moto) on loopback, with faults put between it and the client."""

import asyncio
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from bucket_server import META, NAMES, PLATES, make_images, serving
from hypothesis import given, settings
from hypothesis import strategies as st

from bpsutils import download as module
from bpsutils.__main__ import main
from bpsutils.bucket import BUCKET, PREFIX, choose
from bpsutils.download import download_images
from bpsutils.images import read_image


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return make_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def loaded(images):
    with serving(images) as server:
        yield server


@pytest.fixture
def server(loaded, monkeypatch):
    monkeypatch.setattr(module, "BACKOFF_S", (0.01, 0.01, 0.01))
    loaded.reset()
    return loaded


def fetch(server, to, **options):
    return download_images(to, endpoint=server.url, progress=False, **options)


def check_complete(folder, images, names):
    """The images are there, byte for byte, ``meta.csv`` has their rows and no other, and nothing else is left."""
    assert {path.name: path.read_bytes() for path in folder.glob("*.tif")} == {name: images[name] for name in names}
    assert sorted(pd.read_csv(folder / "meta.csv")["filename"]) == sorted(names)
    assert {path.name for path in folder.iterdir()} == {*names, "meta.csv", "downloaded.csv"}


# ------------------------------------------------------------------------------------------------------- choose


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=6), limits=st.tuples(*[st.integers(1, 40)] * 2))
def test_choose_is_balanced_nested_and_the_same_for_any_order_of_rows(sizes, limits):
    names = [f"P24{i % 2}_1-B{i}_001_{n:03d}_proj.tif" for i, size in enumerate(sizes) for n in range(size)]
    table = pd.DataFrame({"filename": names, "dose_Gy": "0.3", "particle_type": "Fe", "hr_post_exposure": "4"})
    small, large = (choose(table, limit=limit, seed=1)["filename"].tolist() for limit in sorted(limits))
    assert large[: len(small)] == small
    assert len(set(large)) == len(large) == min(max(limits), len(names))
    taken = Counter(name.split("-")[1].split("_")[0] for name in small)
    most = max(taken.values())
    assert all(taken[f"B{i}"] >= min(size, most - 1) for i, size in enumerate(sizes))
    shuffled = table.sample(frac=1, random_state=3)
    assert choose(shuffled, limit=max(limits), seed=1)["filename"].tolist() == large


def test_choose_alternates_plates_and_follows_the_seed():
    table = pd.read_csv(pd.io.common.StringIO(META), dtype="str")
    for seed in range(10):
        assert sorted(choose(table, limit=4, seed=seed)["filename"].str[:4]) == sorted(PLATES)
    draws = {tuple(choose(table, limit=6, seed=seed)["filename"]) for seed in range(5)}
    assert len(draws) == 5


# --------------------------------------------------------------------------------------------------- whole calls


def test_everything_comes_byte_for_byte_and_is_not_fetched_twice(server, images, tmp_path, capsys):
    summary = fetch(server, tmp_path)
    assert (summary.chosen, summary.kept, summary.fetched, summary.failed) == (40, 0, 40, {})
    assert summary.size == sum(map(len, images.values()))
    check_complete(tmp_path, images, NAMES)
    assert (tmp_path / "meta.csv").read_text() == META
    assert read_image(tmp_path / NAMES[0]).shape == (9, 13)
    assert capsys.readouterr().out.count("10.1667/RR15338.1") == 1

    summary = fetch(server, tmp_path)
    assert (summary.kept, summary.fetched) == (40, 0)
    assert all(server.gets[name] == 1 for name in NAMES)
    assert capsys.readouterr().out == ""  # licence and citation only once a folder


def test_limit_takes_a_balanced_part_and_a_larger_one_adds_to_it(server, images, tmp_path):
    fetch(server, tmp_path, limit=16)
    part = [path.name for path in tmp_path.glob("*.tif")]
    assert set(Counter((name[:4], name[17:19]) for name in part).values()) == {2}
    check_complete(tmp_path, images, part)
    assert fetch(server, tmp_path, limit=30).kept == 16
    assert len(list(tmp_path.glob("*.tif"))) == 30
    assert max(server.gets[name] for name in NAMES) == 1


def test_filters_add_up_in_one_folder(server, images, tmp_path):
    fetch(server, tmp_path, plates=["P242"])
    check_complete(tmp_path, images, [name for name in NAMES if name.startswith("P242")])
    fetch(server, tmp_path, dose=[0, 1], particle=["X-ray"], hours=[24])
    check_complete(tmp_path, images, [name for name in NAMES if name[:4] in ("P242", "P284")])


def test_a_file_that_is_gone_or_cut_later_is_fetched_again(server, images, tmp_path):
    fetch(server, tmp_path)
    (tmp_path / NAMES[3]).unlink()
    (tmp_path / NAMES[4]).write_bytes(images[NAMES[4]][:50])
    assert fetch(server, tmp_path).fetched == 2
    check_complete(tmp_path, images, NAMES)


def test_a_file_that_download_did_not_write_is_not_trusted(server, images, tmp_path):
    fetch(server, tmp_path, limit=1)
    name = next(name for name in NAMES if not (tmp_path / name).exists())
    (tmp_path / name).write_bytes(b"x" * len(images[name]))
    fetch(server, tmp_path)
    check_complete(tmp_path, images, NAMES)


def test_it_works_where_an_event_loop_runs_as_in_a_notebook(server, images, tmp_path):
    async def cell():
        return fetch(server, tmp_path, limit=8)

    assert asyncio.run(cell()).fetched == 8


def test_rows_that_would_leave_the_folder_are_left_out(server, images, tmp_path):
    bad = META + f"../{NAMES[0]},0.3,Fe,4\n"
    server.s3.put_object(Bucket=BUCKET, Key=f"{PREFIX}/meta.csv", Body=bad.encode())
    try:
        with pytest.warns(UserWarning, match="1 rows of meta.csv name no image"):
            fetch(server, tmp_path / "in")
    finally:
        server.s3.put_object(Bucket=BUCKET, Key=f"{PREFIX}/meta.csv", Body=META.encode())
    assert not (tmp_path / NAMES[0]).exists()
    check_complete(tmp_path / "in", images, NAMES)


# -------------------------------------------------------------------------------------------------------- faults


def test_a_missing_object_is_named_and_the_exit_code_is_1(server, images, tmp_path, capsys):
    gone = NAMES[5]
    server.s3.delete_object(Bucket=BUCKET, Key=f"{PREFIX}/{gone}")
    try:
        code = main(["download", "--to", str(tmp_path), "--endpoint", server.url])
    finally:
        server.s3.put_object(Bucket=BUCKET, Key=f"{PREFIX}/{gone}", Body=images[gone])
    assert code == 1
    assert f"failed, not in the bucket at Microscopy/train/: 1: {gone}" in capsys.readouterr().out
    assert server.gets[gone] == 1  # waiting does not bring it back
    check_complete(tmp_path, images, [name for name in NAMES if name != gone])
    assert main(["download", "--to", str(tmp_path), "--endpoint", server.url]) == 0
    check_complete(tmp_path, images, NAMES)


def flipped(body):
    return body[:-1] + bytes([body[-1] ^ 1])


@pytest.mark.parametrize("spoil", [lambda body: body[:-7], flipped], ids=["truncated", "flipped"])
def test_a_spoilt_body_never_gets_a_final_name(server, images, tmp_path, spoil):
    bad = NAMES[7]
    server.fault = lambda name, _, body: ("200 OK", spoil(body)) if name == bad else None
    summary = fetch(server, tmp_path)
    assert list(summary.failed) == [bad]
    assert server.gets[bad] == 4
    check_complete(tmp_path, images, [name for name in NAMES if name != bad])
    server.fault = None
    assert fetch(server, tmp_path).fetched == 1
    check_complete(tmp_path, images, NAMES)


def test_without_an_md5_the_size_is_checked(server, images, tmp_path):
    upload = {"Bucket": BUCKET, "Key": f"{PREFIX}/{NAMES[0]}"}
    number = server.s3.create_multipart_upload(**upload)["UploadId"]
    part = server.s3.upload_part(**upload, UploadId=number, PartNumber=1, Body=images[NAMES[0]])
    server.s3.complete_multipart_upload(
        **upload, UploadId=number, MultipartUpload={"Parts": [{"ETag": part["ETag"], "PartNumber": 1}]}
    )
    try:
        assert server.s3.head_object(**upload)["ETag"].endswith('-1"')
        server.fault = lambda name, _, body: ("200 OK", body[:-7]) if name == NAMES[0] else None
        assert list(fetch(server, tmp_path).failed) == [NAMES[0]]
        server.fault = None
        assert fetch(server, tmp_path).failed == {}
    finally:
        server.s3.put_object(**upload, Body=images[NAMES[0]])
    check_complete(tmp_path, images, NAMES)


def test_a_short_body_that_the_client_library_accepts_is_refused(monkeypatch):
    class Answer:
        meta = {"size": 10, "e_tag": None}

        async def bytes_async(self):
            return b"short"

    async def get(*_):
        return Answer()

    monkeypatch.setattr("obstore.get_async", get)
    with pytest.raises(ConnectionError, match="5 bytes came, expected 10"):
        asyncio.run(module._get(None, "image"))


def test_requests_that_fail_twice_are_tried_again(server, images, tmp_path):
    server.fault = lambda _, count, body: ("503 Slow Down", body) if count <= 2 else None
    assert fetch(server, tmp_path).failed == {}
    assert set(server.gets.values()) == {3}
    check_complete(tmp_path, images, NAMES)


def test_a_dead_server_is_given_up_and_the_rest_is_named(server, images, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "GIVE_UP_AFTER", 5)
    server.fault = lambda name, *_: (
        ("500 Internal Server Error", b"<Error>busy</Error>") if name != "meta.csv" else None
    )
    summary = fetch(server, tmp_path, concurrency=2)
    assert sorted(summary.failed) == sorted(NAMES)
    reasons = Counter(summary.failed.values())
    assert reasons["not tried after 5 failures in a row"] == 34
    assert reasons["status code: 500 Internal Server Error"] == 6  # five in a row, and the other worker's last
    check_complete(tmp_path, images, [])


def test_a_disk_that_refuses_one_file_is_reported_by_its_reason(server, images, tmp_path):
    (tmp_path / NAMES[0]).mkdir()
    summary = fetch(server, tmp_path)
    assert summary.failed == {NAMES[0]: "Is a directory"}
    assert server.gets[NAMES[0]] == 1
    assert sorted(pd.read_csv(tmp_path / "meta.csv")["filename"]) == sorted(NAMES[1:])


# ------------------------------------------------------------------------------------------------- interruptions


def start_slow_client(server, folder, images):
    """A client in its own process, in the middle of its work."""
    server.delay_s = 0.1
    call = "from bpsutils import download as d, __main__ as m; import functools\n"
    call += "d.download_images = functools.partial(d.download_images, concurrency=2, progress=False)\n"
    call += f"raise SystemExit(m.main(['download', '--to', {str(folder)!r}, '--endpoint', {server.url!r}]))"
    client = subprocess.Popen([sys.executable, "-c", call], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while len(list(folder.glob("*.tif"))) < 6:
        assert client.poll() is None, client.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return client


def test_a_killed_client_continues_where_it_was(server, images, tmp_path):
    client = start_slow_client(server, tmp_path, images)
    client.kill()
    client.communicate()
    there = {path.name: path.read_bytes() for path in tmp_path.glob("*.tif")}
    assert 6 <= len(there) < 40
    assert there == {name: images[name] for name in there}
    (tmp_path / ".0123456789abcdef0123456789abcdef.tmp").write_bytes(b"partial")  # what a kill at a worse moment leaves
    with (tmp_path / "downloaded.csv").open("a") as journal:
        journal.write("\n" + NAMES[-1][:20])
    server.delay_s = 0
    server.gets.clear()
    assert fetch(server, tmp_path).kept == len(there)
    assert not set(server.gets) & set(there)
    check_complete(tmp_path, images, NAMES)


def test_ctrl_c_leaves_a_folder_that_can_be_used_and_continued(server, images, tmp_path):
    client = start_slow_client(server, tmp_path, images)
    client.send_signal(signal.SIGINT)
    _, errors = client.communicate(timeout=20)
    assert client.returncode == 130
    assert errors.strip() == "stopped; the same command continues where `download` was"
    part = [path.name for path in tmp_path.glob("*.tif")]
    assert 6 <= len(part) < 40
    check_complete(tmp_path, images, part)
    server.delay_s = 0
    assert fetch(server, tmp_path).kept == len(part)
    check_complete(tmp_path, images, NAMES)


# -------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"plates": ["P242", "P999"]}, "plates: no image has P999; there are P242, P249, P278, P284"),
        ({"dose": [0.5]}, "dose: no image has 0.5; there are 0.0, 0.3, 0.82, 1.0"),
        ({"particle": ["iron"]}, "particle: no image has iron; there are Fe, X-ray"),
        ({"hours": [5]}, "hours: no image has 5; there are 4, 24"),
        ({"plates": "P242", "hours": 24}, r"no image passes all filters; .*: P242 0.82 Fe 4; P249 0.3 Fe 24"),
        ({"limit": 0}, "limit must be at least 1, got 0"),
        ({"concurrency": 0}, "concurrency must be at least 1, got 0"),
    ],
)
def test_filters_that_match_nothing_say_what_there_is(server, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        fetch(server, tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("endpoint", ["localhost:9000", "http://example.org", "ftp://localhost"])
def test_an_endpoint_must_be_a_safe_url(tmp_path, endpoint):
    with pytest.raises(ValueError, match="endpoint must be an https:// URL"):
        download_images(tmp_path, endpoint=endpoint)


@pytest.mark.parametrize(
    ("endpoint", "reason"),
    [("http://127.0.0.1:9", "Connection refused"), ("https://no-such-host.invalid", "lookup|resolve|dns")],
)
def test_no_server_is_one_clear_line(server, tmp_path, capsys, endpoint, reason):
    assert main(["download", "--to", str(tmp_path / "new"), "--endpoint", endpoint]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith(f"error: cannot fetch {BUCKET}/{PREFIX}/meta.csv from {endpoint}: ")
    assert any(word in error for word in reason.split("|"))
    assert not (tmp_path / "new").exists()


def test_a_server_without_the_data_set_is_one_clear_line(server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PREFIX", "Elsewhere")
    with pytest.raises(ConnectionError, match="cannot fetch .*Elsewhere/meta.csv.*: not in the bucket at Elsewhere/"):
        fetch(server, tmp_path)


def test_a_page_in_place_of_the_table_is_refused(server, tmp_path):
    server.s3.put_object(Bucket=BUCKET, Key=f"{PREFIX}/meta.csv", Body=b"<html>Please log in</html>")
    try:
        with pytest.raises(ConnectionError, match="sent no table with filename, dose_Gy"):
            fetch(server, tmp_path)
    finally:
        server.s3.put_object(Bucket=BUCKET, Key=f"{PREFIX}/meta.csv", Body=META.encode())


def test_default_folder_is_below_data():
    from bpsutils.__main__ import parser

    args = parser().parse_args(["download", "--hours", "4", "24", "--dose", "0", "0.3", "--limit", "10"])
    assert (args.to, args.hours, args.dose, args.limit) == (Path("data/bps"), [4, 24], [0.0, 0.3], 10)


def test_a_folder_with_images_of_another_source_is_refused_and_kept(server, tmp_path):
    (tmp_path / "meta.csv").write_text("filename,dose_Gy,particle_type,hr_post_exposure\nmine.tif,0,Fe,4\n")
    (tmp_path / "mine.tif").write_bytes(b"years of work")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(FileExistsError, match="that no download put there; choose another --to"):
        fetch(server, tmp_path)
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def test_two_sources_do_not_mix(server, tmp_path):
    (tmp_path / "downloaded.csv").write_text("filename,bytes,https://elsewhere.example")
    with pytest.raises(FileExistsError, match="holds images from https://elsewhere.example, not from http"):
        fetch(server, tmp_path)
