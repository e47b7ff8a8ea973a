"""Run by the tests as a program that can be killed: write the -C set of a made data set into a folder."""

import sys

from corruption_pictures import labelled_scenes

from dataset_builders.corruptions import CORRUPTIONS, EXTRA_CORRUPTIONS, write_corrupted

NAMES = (*CORRUPTIONS, *EXTRA_CORRUPTIONS)


def write(folder, workers: int, **settings):
    return write_corrupted(
        labelled_scenes(204), folder, NAMES, [4], seed=3, workers=workers, progress=False, **settings
    )


if __name__ == "__main__":
    write(sys.argv[1], workers=int(sys.argv[2]))
