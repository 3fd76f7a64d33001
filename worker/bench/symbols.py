"""What SUSE's klp-build asks a vmlinux, in the way it asks: all defined symbols by pyelftools into a list, each wanted one
looked for in that list, and each looked for in the table of ftrace locations (exact, or behind an ENDBR).

Usage: symbols.py VMLINUX NAMES. Prints for each name how many symbols it has, and whether the first can be traced.
"""
import struct
import sys

from elftools.elf.elffile import ELFFile


def main():
    wanted = open(sys.argv[2]).read().split()
    with open(sys.argv[1], "rb") as file:
        elf = ELFFile(file)
        symbols = []
        start = stop = None
        for symbol in elf.get_section_by_name(".symtab").iter_symbols():
            if symbol.name == "__start_mcount_loc":
                start = symbol["st_value"]
            elif symbol.name == "__stop_mcount_loc":
                stop = symbol["st_value"]
            if symbol["st_shndx"] != "SHN_UNDEF" and symbol["st_info"]["type"] not in ("STT_FILE", "STT_SECTION"):
                symbols.append((symbol.name, symbol["st_value"]))
        section = next(
            s for s in elf.iter_sections()
            if s["sh_addr"] and s["sh_addr"] <= start < s["sh_addr"] + s["sh_size"]
        )
        at = start - section["sh_addr"]
        data = section.data()[at:at + stop - start]
        locations = set(struct.unpack(f"<{len(data) // 8}Q", data))
    for name in wanted:
        addresses = sorted(value for symbol, value in symbols if symbol == name)
        traced = bool(addresses) and (addresses[0] in locations or addresses[0] + 4 in locations)
        print(name, len(addresses), int(traced))


main()
