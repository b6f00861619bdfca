"""What a person says of a run: corrections, their log, the review of what is least certain, sorting again."""

from manylens.correcting.corrector import Change as Change
from manylens.correcting.corrector import Corrector as Corrector
from manylens.correcting.corrector import Moved as Moved
from manylens.correcting.files import write_files as write_files
