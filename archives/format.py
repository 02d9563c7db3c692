"""The records that a zip is made of, and the numbers in them: what its readers and its writer must agree on.

The other rooms of ``archives`` enter here; it reads and writes nothing itself.
Format: PKWARE APPNOTE.TXT 6.3.10; the section beside each record describes its fields in their order.
"""

from __future__ import annotations

import struct

LOCAL = struct.Struct("<4s5H3L2H")  # 4.3.7: before the data of each entry.
LOCAL_SIGNATURE = b"PK\x03\x04"
DESCRIPTOR_SIGNATURE = b"PK\x07\x08"  # 4.3.9: after the data, where the sizes were not known before them.
CENTRAL = struct.Struct("<4s6H3L5H2L")  # 4.3.12: each entry once more, in the directory at the end.
CENTRAL_SIGNATURE = b"PK\x01\x02"
END64 = struct.Struct("<4sQ2H2L4Q")  # 4.3.14
END64_SIGNATURE = b"PK\x06\x06"
END64_LOCATOR = struct.Struct("<4sLQL")  # 4.3.15
END64_LOCATOR_SIGNATURE = b"PK\x06\x07"
END = struct.Struct("<4s4H2LH")  # 4.3.16
END_SIGNATURE = b"PK\x05\x06"

# Methods of packing (4.4.5).
STORED, DEFLATED = 0, 8

# Bits of an entry's flags (4.4.4).
IS_ENCRYPTED = 1 << 0
SIZES_FOLLOW = 1 << 3
IS_PATCH_DATA = 1 << 5
IS_STRONGLY_ENCRYPTED = 1 << 6
IS_UTF8 = 1 << 11
IS_MASKED = 1 << 13

# A field that is full says that the true number stands in the zip64 records, or in this extra field (4.5.3).
MAX16, MAX32 = 0xFFFF, 0xFFFFFFFF
ZIP64_EXTRA_ID = 1
# Info-ZIP's extended timestamp.
TIMESTAMP_EXTRA_ID = 0x5455
