import numpy as np
import pytest

from bpsutils import ImageStream, download_images, read_image, write_image
from bpsutils.download import stream_table
from bpsutils.local_bucket import LocalBucket

NAMES = [f"P242_73665006707-A6_001_{number:03d}_proj.tif" for number in range(1, 6)]


@pytest.fixture
def bucket(tmp_path):
    folder = tmp_path / "bucket"
    for number, name in enumerate(NAMES):
        write_image(folder / name, np.full((9, 13), 500 + number, np.uint16))
    rows = [f"{name},0.82,Fe,4" for name in NAMES]
    (folder / "meta.csv").write_text("\n".join(["filename,dose_Gy,particle_type,hr_post_exposure", *rows, ""]))
    bucket = LocalBucket(folder)
    yield bucket
    bucket.close()


def fetch(bucket, to, **options):
    return download_images(to, endpoint=bucket.url, progress=False, **options)


def test_a_second_download_asks_only_for_what_is_missing(bucket, tmp_path):
    assert fetch(bucket, tmp_path / "copy", limit=2).fetched == 2
    assert bucket.requests == 1 + 2  # meta.csv, and the images
    assert fetch(bucket, tmp_path / "copy").fetched == 3
    assert bucket.requests == 1 + 2 + 1 + 3
    assert [int(read_image(tmp_path / "copy" / name)[0, 0]) for name in NAMES] == [500, 501, 502, 503, 504]


def test_a_stream_reads_from_it(bucket):
    stream = ImageStream(stream_table(endpoint=bucket.url), endpoint=bucket.url)
    assert [int(sample["image"].int().max()) for sample in stream] == [500, 501, 502, 503, 504]


def test_what_is_not_there_is_missing_and_nothing_outside_the_folder_is_served(bucket, tmp_path):
    (bucket.folder / NAMES[0]).unlink()
    (tmp_path / "secret.txt").write_text("private")
    summary = fetch(bucket, tmp_path / "copy")
    assert list(summary.failed) == [NAMES[0]]
    assert "not in the bucket" in summary.failed[NAMES[0]]
    table = stream_table(endpoint=bucket.url).head(1)
    table["path"] = "s3://nasa-bps-training-data/Microscopy/train/../secret.txt"
    with pytest.raises(FileNotFoundError, match="is not in its bucket"):
        list(ImageStream(table, endpoint=bucket.url))
