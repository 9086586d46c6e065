"""Run stages 1 to 8 in order: from the archives in data/archives to an evaluated model.

    python RunPipeline.py --demo                 # no downloads: a small data set made here
    python RunPipeline.py                        # your archives, with every script's defaults
    python RunPipeline.py --from 7 -- --image-size 64 --epochs 10

Options after -- are those of ModelTraining.py. The demo writes to data/demo and models/demo-* only.
Its fake images imitate a generator's traces, so its model detects those traces and nothing else.
"""

import sys
from datetime import datetime

from real_vs_ai import pipeline
from real_vs_ai.core.cli import command, make_parser
from real_vs_ai.core.config import DATA_DIR, MODELS_DIR, RAW_DIR
from real_vs_ai.models.runs import how_to_use, newest_run
from real_vs_ai.training.command_line import parse_training_options


def parse_args(argv=None):
    parser = make_parser(__doc__)
    add, numbers = parser.add_argument, range(1, pipeline.N_STAGES + 1)
    first, last = numbers[0], numbers[-1]
    add("--demo", action="store_true", help="run on the embedded demo data")
    add("--from", dest="first", type=int, choices=numbers, default=first, help="first stage to run")
    add("--to", dest="last", type=int, choices=numbers, default=last, help="last stage to run")
    training = "options of ModelTraining.py, after --"
    add("training", nargs="*", metavar="-- TRAINING OPTIONS", help=training)
    args = parser.parse_args(argv)
    if args.demo and (args.training or (args.first, args.last) != (first, last)):
        parser.error("--demo runs every stage with settings of its own; leave the others out")
    # Now, so that a wrong option does not end the run after six stages.
    args.training = parse_training_options(args.training, description=None)
    return args


@command
def main(argv=None):
    args = parse_args(argv)
    if args.demo:
        data_dir = DATA_DIR / "demo"
        pipeline.make_demo_data(data_dir)
        run_name = f"demo-{datetime.now():%Y%m%d-%H%M%S}"
        options = pipeline.demo_options(data_dir=data_dir, models_dir=MODELS_DIR, run_name=run_name)
    else:
        options = pipeline.PipelineOptions(args.training)
    stages = pipeline.plan_stages(options)[args.first - 1 : args.last]
    raw_dir = options.data_dir / RAW_DIR.name
    result = pipeline.run_stages(stages, raw_dir=raw_dir, say=lambda line: print(line, flush=True))
    print(f"\n{result}")
    if result.exit_code == 0 and args.last == pipeline.N_STAGES and (run := newest_run()):
        print(how_to_use(run))
    return result.exit_code


if __name__ == "__main__":
    sys.exit(main())
