"""A program that runs the Python text it is given: what engines of the warden's tests are, plain or of a nursery.

Run as `python -I script_host.py TEXT`, or as `python -I script_host.py --nursery FD`, where engines are forks of it.
"""

import sys


def run(argv: list[str]) -> None:
    exec(argv[0], {"__name__": "script", "sys": sys})


def born(argv: list[str]) -> None:
    sys.argv[:] = argv[2:]
    run(argv[3:])


if __name__ == "__main__":
    if sys.argv[1] == "--nursery":
        sys.path.append(sys.argv[2])
        from corral.warden.birth import serve_births

        for extra in sys.argv[3:-1]:
            exec(extra)
        serve_births(int(sys.argv[-1]), born)
    else:
        run(sys.argv[1:])
