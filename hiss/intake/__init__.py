"""The ways in from files and controls: files, watched directories, process variables. A client as any other."""

from hiss.intake.parts import Wishes as Wishes
from hiss.intake.putting import put as put
from hiss.intake.watching import Watch as Watch
from hiss.intake.watching import WatchOptions as WatchOptions
