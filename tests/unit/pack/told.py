"""What a command says of a pack, and the tables beside one; no test itself."""

import csv

import numpy as np
import typed


def run(capsys, *words):
    """Exit status of a command, and all that it wrote in one line."""
    status, out, err = typed.run(capsys, *words)
    return status, " ".join((out + err).split())


def with_tables(pack):
    """The tables that `pack` writes beside the shards."""
    names = pack.manifest.identities
    labels = np.concatenate([shard.samples["label"] for shard in pack.index.shards])
    with (pack.path / "pairs.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("pair", "identity", "kind", "first", "other", "how", "note"))
        for pair, label in enumerate(labels):
            table.writerow((pair, names[label], "blur", f"{names[label]}/{pair}.png", "", "", ""))
    (pack.path / "rejected.csv").write_text(
        "path,reason\nperson 2/a.png,zero bytes\nperson 3/b.png,same content as person 2/c.png\n"
        "person 3/d.png,zero bytes\n"
    )
    (pack.path / "contact_sheet.png").write_bytes(b"faces")
    return pack
