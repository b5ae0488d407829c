/* The boot guest: stands in OSv's place on a disk and tells, on COM1, what it finds there.
 *
 * Everything is read through the BIOS, as OSv's boot sector reads, and from where the disk itself says it is: the file
 * system where slot 2 of the partition table points, its tables where its superblock points. One `key=value` line for
 * each thing found; names and the command line are percent-encoded where a byte is not printable ASCII. The last line is
 * `result=ok`, or `error=` and why; then the machine is powered off, whichever it was.
 *
 * Formats: the loader.img of OSv's Makefile and scripts/imgedit.py, the MBR as fs/devfs/device.cc reads it, ROFS as
 * fs/rofs/rofs.hh lays it out. All numbers on disk are little endian, as this machine is.
 */

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

enum {
    SECTOR = 512,
    SECTORS_PER_READ = 64,          /* what OSv's boot sector asks for at once */
    COMMAND_LINE_LBA = 1,
    COMMAND_LINE_SECTORS = 63,
    CHUNKS_AT = 0x10,
    CHUNK = 32768,
    SIGNATURE_AT = 0x1b8,
    PARTITION_AT = 0x1ce,           /* slot 2, which OSv calls vblk0.1 and mounts as root */
    KERNEL_AT = 0x100000,           /* where the boot sector has put this program */
    KERNEL_END = 0x1000000,         /* where our own memory begins: guest.ld */
    COMMAND_LINE_AT = 0x7e00,       /* where the boot sector has put the command line */
    BUFFER_AT = 0x80000,            /* the BIOS reaches the first MiB only */
    TABLES_AT = 0x1100000,
    TABLES_END = 0x3000000,         /* of a machine with 64 MiB */
    INODE_SIZE = 32,
    MODE_DIRECTORY = 0x4000,
    MODE_FILE = 0x8000,
    MODE_LINK = 0xa000,
    COM1 = 0x3f8,
};

struct packet {                     /* INT 13h, AH=42h */
    u8 size, zero;
    u16 sectors, offset, segment;
    u64 lba;
} __attribute__((packed));

struct superblock {
    u64 magic, version, block_size, structure_first_block, structure_blocks, dentries, symlinks, inodes;
} __attribute__((packed));

struct inode {
    u64 mode, number, data_offset, count;
} __attribute__((packed));

extern u32 call_bios_read(void *bios_read, struct packet *packet);
void guest_main(void *services) __attribute__((noreturn));

static void *bios_read;
static u32 crc_table[256];
static u64 sectors_read;
static u64 partition_start, partition_sectors;
static const u8 *tables;
static u64 tables_size;

/* A compiler may call these for what it makes of a loop or an assignment. */
void *memset(void *to, int byte, u32 count)
{
    void *result = to;
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(count) : "a"(byte) : "memory");
    return result;
}

void *memcpy(void *to, const void *from, u32 count)
{
    void *result = to;
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
    return result;
}

static void out8(u16 port, u8 value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static void out16(u16 port, u16 value)
{
    __asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port));
}

static u8 in8(u16 port)
{
    u8 value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static void serial_start(void)
{
    out8(COM1 + 1, 0);              /* no interrupts */
    out8(COM1 + 3, 0x80);           /* divisor follows: 1, 115200 baud, as OSv sets it */
    out8(COM1 + 0, 1);
    out8(COM1 + 1, 0);
    out8(COM1 + 3, 3);              /* 8 bits, no parity, one stop bit */
    out8(COM1 + 2, 7);              /* FIFOs on and cleared */
    out8(COM1 + 4, 3);
}

static void put(u8 byte)
{
    while (!(in8(COM1 + 5) & 0x20))
        ;
    out8(COM1, byte);
}

static void print(const char *text)
{
    while (*text)
        put((u8)*text++);
}

static void print_hex(u64 value, int digits)
{
    print("0x");
    while (digits--)
        put((u8)"0123456789abcdef"[(value >> (4 * digits)) & 15]);
}

/* value = value / 10; the remainder. In 16-bit steps: there is no 64-bit division without a runtime library. */
static u32 divide_by_ten(u64 *value)
{
    u64 quotient = 0;
    u32 rest = 0;
    for (int shift = 48; shift >= 0; shift -= 16) {
        u32 part = (rest << 16) | (u32)((*value >> shift) & 0xffff);
        quotient = (quotient << 16) | (part / 10);
        rest = part % 10;
    }
    *value = quotient;
    return rest;
}

static void print_number(u64 value)
{
    char digits[21];
    int at = sizeof digits - 1;
    digits[at] = 0;
    do
        digits[--at] = (char)('0' + divide_by_ten(&value));
    while (value);
    print(digits + at);
}

static void print_encoded(const u8 *bytes, u32 count)
{
    for (; count; count--, bytes++) {
        if (*bytes >= ' ' && *bytes <= '~' && *bytes != '%') {
            put(*bytes);
        } else {
            put('%');
            put((u8)"0123456789ABCDEF"[*bytes >> 4]);
            put((u8)"0123456789ABCDEF"[*bytes & 15]);
        }
    }
}

static void line_number(const char *key, u64 value)
{
    print(key);
    put('=');
    print_number(value);
    put('\n');
}

static void line_hex(const char *key, u64 value, int digits)
{
    print(key);
    put('=');
    print_hex(value, digits);
    put('\n');
}

static void power_off(void) __attribute__((noreturn));
static void power_off(void)
{
    while (!(in8(COM1 + 5) & 0x40)) /* until the last byte is sent */
        ;
    out16(0x604, 0x2000);           /* PM1a control of QEMU's pc and q35: sleep type 0, sleep enable */
    out16(0xb004, 0x2000);          /* Bochs, and QEMU before 2.0 */
    out16(0x4004, 0x3400);          /* VirtualBox: sleep type 5 */
    out8(0x64, 0xfe);               /* a reset through the keyboard controller: what ends a Firecracker machine */
    for (;;)
        __asm__ volatile("cli; hlt");
}

static void fail(const char *why) __attribute__((noreturn));
static void fail(const char *why)
{
    print("error=");
    print(why);
    put('\n');
    power_off();
}

static u32 crc32(u32 crc, const u8 *bytes, u32 count)
{
    crc = ~crc;
    while (count--)
        crc = (crc >> 8) ^ crc_table[(crc ^ *bytes++) & 0xff];
    return ~crc;
}

static void crc32_start(void)
{
    for (u32 byte = 0; byte < 256; byte++) {
        u32 value = byte;
        for (int bit = 0; bit < 8; bit++)
            value = (value >> 1) ^ (value & 1 ? 0xedb88320u : 0);
        crc_table[byte] = value;
    }
}

/* `sectors` (at most SECTORS_PER_READ) from `lba` on, now at BUFFER_AT. Does not come back where the BIOS cannot. */
static const u8 *read_disk(u64 lba, u32 sectors)
{
    struct packet packet = {sizeof packet, 0, (u16)sectors, 0, BUFFER_AT >> 4, lba};
    u32 status = call_bios_read(bios_read, &packet);
    if (status) {
        print("error=read lba=");
        print_hex(lba, 16);
        print(" status=");
        print_hex(status, 2);
        put('\n');
        power_off();
    }
    sectors_read += sectors;
    return (const u8 *)BUFFER_AT;
}

/* Blocks of the file system, never beyond its partition. */
static const u8 *read_blocks(u64 block, u32 count)
{
    if (block >= partition_sectors || count > partition_sectors - block)
        fail("rofs: a block beyond the partition's end");
    return read_disk(partition_start + block, count);
}

static u16 read_u16(const u8 *at)
{
    return (u16)(at[0] | at[1] << 8);
}

static u32 read_u32(const u8 *at)
{
    return read_u16(at) | (u32)read_u16(at + 2) << 16;
}

static void report_kernel(void)
{
    const u8 *mbr = read_disk(0, 1);
    u32 chunks = read_u16(mbr + CHUNKS_AT);
    line_number("boot.chunks", chunks);
    line_hex("boot.disk_signature", read_u32(mbr + SIGNATURE_AT), 8);
    if (read_u16(mbr + 0x1fe) != 0xaa55)
        fail("boot sector: no 55 aa at its end");
    if (chunks == 0 || chunks > (KERNEL_END - KERNEL_AT) / CHUNK)
        fail("kernel: more chunks than this guest takes");
    line_number("kernel.size", chunks * CHUNK);
    line_hex("kernel.crc32", crc32(0, (const u8 *)KERNEL_AT, chunks * CHUNK), 8);
}

static void report_command_line(void)
{
    const u8 *line = (const u8 *)COMMAND_LINE_AT;
    u32 length = 0;
    while (length < COMMAND_LINE_SECTORS * SECTOR && line[length])
        length++;
    line_number("command_line.length", length);
    if (length == COMMAND_LINE_SECTORS * SECTOR)
        fail("command line: no NUL in the 63 sectors that are read");
    print("command_line=");
    print_encoded(line, length);
    put('\n');
}

static void report_partition(void)
{
    const u8 *entry = read_disk(0, 1) + PARTITION_AT;
    partition_start = read_u32(entry + 8);
    partition_sectors = read_u32(entry + 12);
    line_hex("partition.active", entry[0], 2);
    line_hex("partition.type", entry[4], 2);
    line_number("partition.chs_sector", entry[2] & 0x3f);
    line_number("partition.start", partition_start);
    line_number("partition.sectors", partition_sectors);
    if (entry[4] == 0 || (entry[2] & 0x3f) == 0)
        fail("partition: OSv skips slot 2: its type or its CHS sector is 0");
}

static void report_superblock(struct superblock *superblock)
{
    memcpy(superblock, read_blocks(0, 1), sizeof *superblock);
    line_hex("superblock.magic", superblock->magic, 16);
    line_number("superblock.version", superblock->version);
    line_number("superblock.block_size", superblock->block_size);
    line_number("superblock.structure_info_first_block", superblock->structure_first_block);
    line_number("superblock.structure_info_blocks_count", superblock->structure_blocks);
    line_number("superblock.directory_entries_count", superblock->dentries);
    line_number("superblock.symlinks_count", superblock->symlinks);
    line_number("superblock.inodes_count", superblock->inodes);
    if (superblock->magic != 0xdeadbead || superblock->version != 1 || superblock->block_size != SECTOR)
        fail("rofs: OSv would not mount this superblock");
}

static void read_tables(const struct superblock *superblock)
{
    u8 *to = (u8 *)TABLES_AT;
    u64 left = superblock->structure_blocks, block = superblock->structure_first_block;
    if (left > (TABLES_END - TABLES_AT) / SECTOR)
        fail("rofs: tables larger than this guest takes");
    tables = to;
    tables_size = left * SECTOR;
    while (left) {
        u32 count = left < SECTORS_PER_READ ? (u32)left : SECTORS_PER_READ;
        memcpy(to, read_blocks(block, count), count * SECTOR);
        to += count * SECTOR;
        block += count;
        left -= count;
    }
    line_hex("tables.crc32", crc32(0, tables, (u32)tables_size), 8);
}

static u64 skip(u64 at, u64 count)
{
    if (count > tables_size - at)
        fail("rofs: tables end early");
    return at + count;
}

/* Where the dentry after the one at `at` begins. */
static u64 next_dentry(u64 at)
{
    skip(at, 10);
    return skip(at, 10 + (u64)read_u16(tables + (u32)at + 8));
}

static void read_inode(u64 inodes_at, u64 inodes, u64 number, struct inode *inode)
{
    if (number == 0 || number > inodes)
        fail("rofs: an inode number that is not in the table");
    u64 at = inodes_at + (number - 1) * INODE_SIZE;
    skip(at, INODE_SIZE);
    memcpy(inode, tables + (u32)at, INODE_SIZE);
    if (inode->number != number)
        fail("rofs: an inode that carries another number");
}

static u32 content_crc32(const struct inode *inode)
{
    u64 left = inode->count, block = inode->data_offset;
    u32 crc = 0;
    while (left) {
        u32 bytes = left < SECTORS_PER_READ * SECTOR ? (u32)left : SECTORS_PER_READ * SECTOR;
        u32 blocks = (bytes + SECTOR - 1) / SECTOR;
        crc = crc32(crc, read_blocks(block, blocks), bytes);
        block += blocks;
        left -= bytes;
    }
    return crc;
}

/* entry=NAME, and below it what its inode says: the children of a directory, a file's size and the CRC-32 of its bytes,
   a link's place in the table of links. */
static void report_entry(u64 at, u64 inodes_at, u64 inodes)
{
    struct inode inode;
    u64 number;
    memcpy(&number, tables + (u32)at, sizeof number);
    print("entry=");
    print_encoded(tables + (u32)at + 10, read_u16(tables + (u32)at + 8));
    put('\n');
    line_number("entry.inode", number);
    read_inode(inodes_at, inodes, number, &inode);
    line_hex("entry.mode", inode.mode, 4);
    line_number("entry.count", inode.count);
    if ((inode.mode & 0xf000) == MODE_FILE)
        line_hex("entry.crc32", content_crc32(&inode), 8);
}

static void report_root(const struct superblock *superblock)
{
    struct inode root;
    u64 symlinks_at = 0, inodes_at, at;
    for (u64 index = 0; index < superblock->dentries; index++)
        symlinks_at = next_dentry(symlinks_at);
    inodes_at = symlinks_at;
    for (u64 index = 0; index < superblock->symlinks; index++) {
        skip(inodes_at, 2);
        inodes_at = skip(inodes_at, 2 + (u64)read_u16(tables + (u32)inodes_at));
    }
    read_inode(inodes_at, superblock->inodes, 1, &root);
    line_hex("root.mode", root.mode, 4);
    line_number("root.inode_no", root.number);
    line_number("root.data_offset", root.data_offset);
    line_number("root.count", root.count);
    if ((root.mode & 0xf000) != MODE_DIRECTORY)
        fail("rofs: inode 1 is no directory");
    if (root.data_offset > superblock->dentries || root.count > superblock->dentries - root.data_offset)
        fail("rofs: the root's entries are not in the table");
    at = 0;
    for (u64 index = 0; index < root.data_offset; index++)
        at = next_dentry(at);
    for (u64 index = 0; index < root.count; index++) {
        report_entry(at, inodes_at, superblock->inodes);
        at = next_dentry(at);
    }
}

void guest_main(void *services)
{
    extern u8 bss_start[], bss_end[];
    struct superblock superblock;
    memset(bss_start, 0, (u32)(bss_end - bss_start));
    bios_read = services;
    serial_start();
    crc32_start();
    print("guest=osvdeploy boot guest, not OSv\n");
    report_kernel();
    report_command_line();
    report_partition();
    report_superblock(&superblock);
    read_tables(&superblock);
    report_root(&superblock);
    line_number("sectors_read", sectors_read);
    print("result=ok\n");
    power_off();
}
