"""The portfolio is what the fills amount to, in whatever order and however often they come."""

from __future__ import annotations

import random
from collections import deque
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from conftest import DAY_NS, E9, NOW_NS, Desk, OpenDesk, receipt, told_of, trade  # type: ignore[import-not-found] # fixtures of this folder
from hypothesis import given, settings
from hypothesis import strategies as st

from minhos_mesh.runtime.storage import _migrate, _open_writer
