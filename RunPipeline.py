"""Run stages 1 to 8 in order: from the archives in data/archives to an evaluated model.

    python RunPipeline.py --demo                 # no downloads: a small data set made here
    python RunPipeline.py                        # your archives, with every script's defaults
    python RunPipeline.py --from 7 -- --image-size 64 --epochs 10

Options after -- go to ModelTraining.py. The demo writes to data/demo and models/demo-* only. Its
fake images imitate a generator's traces, so its model detects those traces and nothing else.
"""

import sys
from datetime import datetime

from real_vs_ai.cli import command, make_parser
from real_vs_ai.config import DATA_DIR, MODELS_DIR, RAW_DIR
from real_vs_ai.pipeline import N_STAGES, make_demo_data, plan_demo, plan_pipeline, run_stages
from real_vs_ai.runs import how_to_use, newest_run


def parse_args(argv=None):
    parser = make_parser(__doc__)
    numbers = range(1, N_STAGES + 1)
    parser.add_argument("--demo", action="store_true", help="run on the embedded demo data")
    parser.add_argument(
        "--from", dest="first", type=int, choices=numbers, default=1, help="first stage to run"
    )
    parser.add_argument(
        "--to", dest="last", type=int, choices=numbers, default=N_STAGES, help="last stage to run"
    )
    parser.add_argument(
        "training",
        nargs="*",
        metavar="-- TRAINING OPTIONS",
        help="options of ModelTraining.py, after --",
    )
    args = parser.parse_args(argv)
    if args.demo and (args.training or (args.first, args.last) != (1, N_STAGES)):
        parser.error("--demo runs every stage with settings of its own; leave the others out")
    return args


@command
def main(argv=None):
    args = parse_args(argv)
    if args.demo:
        data_dir = DATA_DIR / "demo"
        make_demo_data(data_dir)
        run_name = f"demo-{datetime.now():%Y%m%d-%H%M%S}"
        stages = plan_demo(data_dir=data_dir, models_dir=MODELS_DIR, run_name=run_name)
        raw_dir = data_dir / RAW_DIR.name
    else:
        stages = plan_pipeline(first=args.first, last=args.last, training_arguments=args.training)
        raw_dir = RAW_DIR
    result = run_stages(stages, raw_dir=raw_dir, say=lambda line: print(line, flush=True))
    print(f"\n{result}")
    if result.exit_code == 0 and args.last == N_STAGES and (run := newest_run()):
        print(how_to_use(run))
    return result.exit_code


if __name__ == "__main__":
    sys.exit(main())
