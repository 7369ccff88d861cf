"""Many streams on a Ray cluster: each actor runs some of them, and starts again where one dies.

    pip install 'ray>=2.60,<3'
    python examples/ray_streams.py BUNDLE SHARED north=/srv/north south=mqtt://broker/south ...
    python examples/ray_streams.py rain.bundle /mnt/shared --actors 8 --cadence 300 STREAMS...

SHARED is a folder that every node has under the same path, and so is BUNDLE. Nowcasts go to
SHARED/nowcasts/NAME, and the state of each stream lies in SHARED/state: an actor that Ray starts
again, on the same node or another one, reads it and continues, with the same bits. It runs until
Ctrl-C; the next run continues, with any number of actors.

RAY_ADDRESS names the cluster; without it, Ray starts one on this machine.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("RAY_DEDUP_LOGS", "0")  # lines of actors that differ in a number alone

import ray

import stpl_deploy as stpl


class Shard:
    """Some of the streams, in a process of their own."""

    @ray.method(num_returns=1)
    def run(self, bundle: str, shared: str, streams: list[str], cadence_s: float | None) -> int:
        """Stream until every source ends.

        Args:
            bundle: a bundle's directory.
            shared: a folder on a disk that every node has.
            streams: each NAME=SOURCE.
            cadence_s: seconds between frames; None: the bundle's, or learned.

        Returns:
            How many nowcasts were made since the last start.
        """
        where = f"in process {os.getpid()} on node {ray.get_runtime_context().get_node_id()}"
        print(f"{len(streams)} streams {where}: {' '.join(streams)}", flush=True)
        # One engine by name, since `auto` may take another one on another node: with other bits.
        with (
            stpl.load(bundle, engine="onnx", threads=1) as model,
            model.stream(
                streams,
                sinks=[f"npz:{shared}/nowcasts"],
                state_file=Path(shared) / "state" / "stream.state",
                policy="queue",
                cadence=cadence_s,
            ) as nowcasts,
        ):
            return sum(1 for _ in nowcasts)


def main() -> None:
    """Share out the streams, and wait for their end."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("shared", type=Path, help="folder that every node has")
    parser.add_argument("streams", nargs="+", metavar="NAME=SOURCE")
    parser.add_argument("--actors", type=int, default=2)
    parser.add_argument("--cadence", type=float, help="seconds between frames")
    asked = parser.parse_args()
    bundle, shared = str(asked.bundle.resolve()), str(asked.shared.resolve())
    # Stream n goes to actor n modulo their number: about as many to each.
    shards = [asked.streams[first :: asked.actors] for first in range(asked.actors)]
    ray.init()
    # Without an end: a process that dies is started again, and `run` is called again.
    again = {"max_restarts": -1, "max_task_retries": -1}
    shard_actor = ray.remote(Shard).options(num_cpus=1, scheduling_strategy="SPREAD", **again)
    actors = [shard_actor.remote() for shard in shards if shard]
    runs = [
        actor.run.remote(bundle, shared, shard, asked.cadence)
        for actor, shard in zip(actors, shards, strict=False)
    ]
    try:
        print(f"{sum(ray.get(runs))} nowcasts")
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
