"""``python -m tests.fuzz --inputs 1000000 --seed 0``"""

import argparse
import functools
import gc
import random
import sys
import time

from tests.fuzz.targets import TARGETS, Target

_INPUTS_BETWEEN_COLLECTIONS = 5_000
_TRIES = 3
CHARACTERS = "\x00\n\r\t \"'\\{}[]<>:#&*!|-_=+.,0123456789eEaAbBzZ\u00e4\u4e2d\u2028\ud800\U0001f600"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--most-ms", type=float, default=100.0, help="Of processor time; more counts as a hang.")
    parser.add_argument("--readers", nargs="+", choices=TARGETS, default=[*TARGETS])
    options = parser.parse_args()
    for name in options.readers:
        target = TARGETS[name]
        number = int(options.inputs * target.share)
        started = time.monotonic()
        accepted, slowest = fuzz(name, target, number, random.Random(options.seed), options.most_ms / 1000)
        seconds = time.monotonic() - started
        print(
            f"{name}: {number:,} inputs in {seconds:.0f} s, {accepted:,} accepted, slowest {1000 * slowest:.0f} ms",
            flush=True,
        )


def fuzz(name: str, target: Target, number: int, chance: random.Random, most_seconds: float = 1.0) -> tuple[int, float]:
    """Inputs accepted, and the longest processor time that one took, in seconds."""
    accepted, slowest = 0, 0.0
    gc.disable()  # its passes over what readers remember would be charged to the input that they meet
    for done in range(number):
        if done % _INPUTS_BETWEEN_COLLECTIONS == 0:
            gc.collect()
        text = mutated(target, chance)
        try:
            was_accepted, seconds = timed(target, text)
        except BaseException:
            print(f"{name}: {text!r}", flush=True)
            raise
        if seconds > most_seconds:  # another program may have slowed it down
            seconds = min(timed_anew(target, text) for _ in range(_TRIES))
        accepted, slowest = accepted + was_accepted, max(slowest, seconds)
        if seconds > most_seconds:
            raise SystemExit(f"{name}: {seconds:.2f} s for {text!r}")
    return accepted, slowest


def timed(target: Target, text: str) -> tuple[bool, float]:
    """Whether a reader accepts a text, and the processor time that it took, in seconds."""
    started = time.process_time()
    accepted = target.read(text)
    return accepted, time.process_time() - started


def timed_anew(target: Target, text: str) -> float:
    """The processor time of a reader that remembers nothing of the text, in seconds."""
    for name, module in list(sys.modules.items()):
        if name.startswith("sftkey_dist."):
            for each in vars(module).values():
                if isinstance(each, functools._lru_cache_wrapper):
                    each.cache_clear()
    return timed(target, text)[1]


def mutated(target: Target, chance: random.Random) -> str:
    """A sample with a few changes: pieces inserted, parts cut, repeated, or exchanged with another sample's."""
    text = chance.choice(target.samples)
    for _ in range(chance.randint(0, 6)):
        start, end = sorted((chance.randint(0, len(text)), chance.randint(0, len(text))))
        change = chance.randint(0, 5)
        if change == 0:
            text = text[:start] + chance.choice(target.pieces) + text[start:]
        elif change == 1:
            text = text[:start] + text[end:]
        elif change == 2:
            text = text[:end] + text[start:end] * chance.randint(1, 3) + text[end:]
        elif change == 3:
            text = text[:start] + chance.choice(CHARACTERS) + text[start + 1 :]
        elif change == 4:
            other = chance.choice(target.samples)
            text = text[:start] + other[chance.randint(0, len(other)) :]
        else:
            text = text[:start] + chance.choice(CHARACTERS) * chance.randint(1, 40) + text[start:]
    return text[:20_000]


if __name__ == "__main__":
    main()
