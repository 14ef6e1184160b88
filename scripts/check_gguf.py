"""Lists a model file with the gguf package and checks that it sees what vitlet wrote.

    check_gguf.py MODEL.gguf
"""

import sys

from gguf import GGUFReader

reader = GGUFReader(sys.argv[1])
names = [tensor.name for tensor in reader.tensors]
assert reader.fields["general.architecture"].contents() == "vit"
assert reader.fields["general.alignment"].contents() == 64
assert names[0] == "patch_embd.weight" and "blk.0.attn_qkv.weight" in names, names[:3]
assert all(tensor.data_offset % 64 == 0 for tensor in reader.tensors)
print(f"{len(names)} tensors, {len(reader.fields)} metadata fields, first {names[0]} {reader.tensors[0].tensor_type.name}")
