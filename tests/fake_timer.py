"""Stands for ``bench.measure.worker``: reads a request, waits for its turn, and says that all took 0.25 s."""

import json
import os
import sys

ONCE = ("load", "first_image", "peak_rss")
EACH = ("text_encode", "denoise_step", "vae_decode", "end_to_end")


def main() -> None:
    request = json.loads(sys.stdin.readline())
    sys.stdout.write(json.dumps({"type": "Ready"}) + "\n")
    sys.stdout.flush()
    sys.stdin.readline()
    warmups = request["warmups"]
    timed = len(request["shots"]) - 1 - warmups
    timings = [
        {
            "variant": request["variant"]["name"],
            "name": name,
            "unit": "byte" if name == "peak_rss" else "second",
            "round": request["round"],
            "process": os.getpid(),
            "warmups": [] if name in ONCE else [0.5] * warmups,
            "values": [0.25] * (1 if name in ONCE else timed),
        }
        for name in (*ONCE, *EACH)
    ]
    sys.stdout.write(json.dumps({"type": "Reply", "timings": timings, "threads": 1, "notes": []}) + "\n")


if __name__ == "__main__":
    main()
