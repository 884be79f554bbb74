"""The command line: ``python -m bpsutils`` and a command; ``-h`` lists them all."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bpsutils.config import Config


def parser() -> argparse.ArgumentParser:
    """Every command with its options."""
    from bpsutils import download

    main_parser = argparse.ArgumentParser(prog="python -m bpsutils", description="Data pipelines for microscopy.")
    commands = main_parser.add_subparsers(dest="command", required=True)

    command = commands.add_parser("run", help="from a folder of images to a trained, evaluated model and a report")
    command.add_argument("--config", type=Path, help="TOML file with fields of bpsutils.Config")
    command.add_argument("--data", type=Path, help="folder of images (default: the shipped simulated sample)")
    command.add_argument("--out", type=Path, help="folder for the results (default: runs/sample)")
    command.add_argument("--overwrite", action="store_true", help="remove an earlier run in --out first")
    command.set_defaults(call=_run)

    command = commands.add_parser("pack", help="decode every image once, into a store that `run` loads from")
    command.add_argument("--config", type=Path, help="TOML file with fields of bpsutils.Config")
    command.add_argument("--data", type=Path, help="folder of images (default: the shipped simulated sample)")
    command.add_argument("--out", type=Path, help="folder of the later run (default: runs/sample)")
    command.set_defaults(call=_pack)

    command = commands.add_parser("download", help="fetch a balanced part of NASA's real images, or all of them")
    download.add_arguments(command)
    command.set_defaults(call=download.main)

    command = commands.add_parser("simulate", help="write simulated nuclei in the real format")
    command.add_argument("--out", type=Path, required=True, help="a new or empty folder")
    command.add_argument("--images", type=int, required=True, help="how many; 77177 is the size of the real set")
    command.add_argument("--seed", type=int, default=0)
    command.set_defaults(call=_simulate)

    command = commands.add_parser("predictions", help="rebuild the stored table that notebook 10 draws from (minutes)")
    command.add_argument("--out", type=Path, help="the CSV to write (default: data_sample/predictions/predictions.csv)")
    command.set_defaults(call=_predictions)

    command = commands.add_parser(
        "leakage", help="rebuild the stored table that notebook 05 draws from (half a minute)"
    )
    command.add_argument("--out", type=Path, help="the CSV to write (default: data_sample/leakage/numbers.csv)")
    command.set_defaults(call=_leakage)

    command = commands.add_parser("badges", help="point every Colab badge and setup cell at this git remote")
    command.set_defaults(call=_badges)

    command = commands.add_parser("doctor", help="check this machine; print a fix for each problem")
    command.set_defaults(call=_doctor)
    return main_parser


def _config(args: argparse.Namespace) -> Config:
    from bpsutils.config import Config

    named = {"image_dir": args.data, "out_dir": args.out}
    changes = {name: value for name, value in named.items() if value is not None}
    return Config.from_toml(args.config, **changes) if args.config else Config(**changes)


def _run(args: argparse.Namespace) -> int:
    from bpsutils.distributed import announce, from_rank_0, ranks
    from bpsutils.pipeline import run, summary

    with ranks():
        config = from_rank_0(lambda: _config(args))
        announce(summary(run(config, overwrite=args.overwrite), config))
    return 0


def _pack(args: argparse.Namespace) -> int:
    from bpsutils.metadata import load_table
    from bpsutils.packed import PACK_FROM, file_paths
    from bpsutils.store import Store, pack_files

    config = _config(args)
    print(f"[1/2] scan {config.image_dir}")
    paths = file_paths(load_table(config))
    print(f"[2/2] pack {len(paths):,} images into {config.pack}")
    start = time.perf_counter()
    packed = pack_files(config.pack, paths)
    store = Store.read(config.pack)
    if packed:
        print(f"packed {packed:,} images in {time.perf_counter() - start:.1f} s")
    else:
        store.verify()
        print("nothing to do: the images are there, and their pixels agree with their checksums")
    print(f"the store holds {len(store.rows):,} images in {store.length / 1e6:,.1f} MB, digest {store.digest[:16]}")
    used = config.packed if config.packed is not None else len(paths) >= PACK_FROM
    needs = "" if used else ", once `packed = true` is in its --config"
    print(f"`python -m bpsutils run` with the same options loads from it{needs}")
    return 0


def _simulate(args: argparse.Namespace) -> int:
    from bpsutils.simulate import simulate_folder

    simulate_folder(args.out, args.images, args.seed)
    return 0


def _predictions(args: argparse.Namespace) -> int:
    from bpsutils.predictions import STORED, build

    build(args.out or STORED)
    return 0


def _leakage(args: argparse.Namespace) -> int:
    from bpsutils.leakage import NUMBERS_CSV, build

    build(args.out or NUMBERS_CSV)
    return 0


def _badges(_: argparse.Namespace) -> int:
    from bpsutils.badges import main

    return main()


def _doctor(_: argparse.Namespace) -> int:
    from bpsutils.device import doctor

    return 1 if doctor() else 0


def main(argv: list[str] | None = None) -> int:
    """Run one command. 0 when it did all it was asked, 1 after an error, 130 after Ctrl-C."""
    args = parser().parse_args(argv)
    try:
        return int(args.call(args))
    except KeyboardInterrupt:
        if os.environ.get("RANK", "0") == "0":  # torchrun stops every rank, and one is enough to say so
            print(f"\nstopped; the same command continues where `{args.command}` was", file=sys.stderr)
        return 130
    except (ValueError, OSError, RuntimeError) as error:
        # these carry messages written for the person at the keyboard; anything else is a bug and shows its traceback
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
