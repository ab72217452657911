"""Count the words of a text."""

import collections
import sys

if __name__ == "__main__":
    for word, count in collections.Counter(sys.stdin.read().lower().split()).most_common(10):
        print(f"{count:6} {word}")
