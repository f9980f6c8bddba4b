"""Rewrites the vectors."""

from tests.make_vectors.files import all_vectors, write

if __name__ == "__main__":
    write(all_vectors())
