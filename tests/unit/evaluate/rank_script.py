"""What each rank runs in `test_three_ranks_find_what_one_does`: evaluate, and write the outcome."""

import dataclasses
import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
from drawn_people import make_config, make_model

from distill.data.manifest import read_pack
from distill.errors import UserError
from distill.evaluate import evaluate
from distill.ranks import from_environment, init_process_group, leave_process_group


def main(whole, few, bad, out):
    torch.set_num_threads(1)
    config = make_config()
    ranks = from_environment(config)
    init_process_group(config, ranks)
    model = make_model()
    told = {
        name: dataclasses.asdict(evaluate(model, read_pack(folder), config, ranks))
        for name, folder in (("whole", whole), ("few", few))
    }
    try:
        evaluate(model, read_pack(bad), config, ranks)
    except UserError as error:
        told["bad"] = str(error)
    Path(out, f"rank{ranks.rank}.json").write_text(json.dumps(told))
    leave_process_group()


main(*sys.argv[1:])
