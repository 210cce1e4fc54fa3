"""Data: the data set class, reading and writing files, small synthetic sets, seeded splits."""

__all__ = [
    "ArrayDataset",
    "Form",
    "Heads",
    "Sequences",
    "Space",
    "Sprites",
    "StreamedDataset",
    "TensorSet",
    "check_disjoint",
    "color_changes",
    "digits",
    "disks_and_rings",
    "encode_labels",
    "few_per_class",
    "held_out_split",
    "phantom_heads",
    "progression",
    "raising_arms",
    "read_data",
    "read_image",
    "read_images",
    "read_labels",
    "read_sequences",
    "read_table",
    "read_volumes",
    "rotations",
    "sprites",
    "stratified_split",
    "stream_data",
    "write_images",
    "write_npz",
    "write_sequences",
    "write_table",
    "write_volumes",
]

from chartae.data.dataset import ArrayDataset
from chartae.data.files import read_data, stream_data, write_npz
from chartae.data.followups import read_sequences, write_sequences
from chartae.data.form import Form
from chartae.data.images import read_image, read_images, write_images
from chartae.data.labels import encode_labels
from chartae.data.phantoms import Heads, phantom_heads
from chartae.data.progressions import color_changes, progression, raising_arms, rotations
from chartae.data.sequences import Sequences, check_disjoint
from chartae.data.space import Space
from chartae.data.splits import few_per_class, held_out_split, stratified_split
from chartae.data.sprites import Sprites, sprites
from chartae.data.streamed import StreamedDataset
from chartae.data.synthetic import digits, disks_and_rings
from chartae.data.tables import read_labels, read_table, write_table
from chartae.data.tensors import TensorSet
from chartae.data.volumes import read_volumes, write_volumes
