"""Methods that ADSQ is measured against: on the same networks, images, batches and schedule. No part of the package."""

from rivals.adsh import ADSH
from rivals.csq import CSQ
from rivals.dpsh import DPSH
from rivals.features import Classifier
from rivals.greedyhash import GreedyHash
from rivals.hashnet import HashNet

RIVALS = {
    "dpsh": DPSH,
    "hashnet": HashNet,
    "adsh": ADSH,
    "csq": CSQ,
    "greedyhash": GreedyHash,
    "classifier": Classifier,
}
