import argparse
import sys

from kgl_mm import __version__


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog='python -m kgl_mm')
    parser.add_argument('--version', action='version', version=__version__)
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
    commands.add_parser('doctor', help='say what is installed, from where, and what is missing')
    parser.parse_args(arguments)
    from kgl_mm import doctor

    return doctor.main()


if __name__ == '__main__':
    sys.exit(main())
