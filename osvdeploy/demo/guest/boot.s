# The boot sector of the boot guest: OSv's contract with the BIOS, and no more of OSv than that.
#
# What an image builder writes for OSv's boot sector is read here from the same places (names as in the table "loader.img"
# of OSv's Makefile and scripts/imgedit.py):
#
#   0x010  u16  chunks of 32 KiB to load; 0 counts as 65536, as it does there
#   0x012       INT 13h AH=42h packet: 64 sectors from LBA 128 to 8000:0000
#   0x022       INT 13h AH=42h packet: 63 sectors from LBA 1 to 0000:7e00, the command line
#   0x032  u32  where the kernel goes: 1 MiB
#   0x1b8       "VSO", the disk signature
#   0x1be       the partition table, which is not ours to fill
#
# Then it calls through the u32 at 1 MiB + 0x18, the entry of an ELF32 header, with the address of bios_read in %eax.
# It cannot load the guest where a read fails, so it says so on COM1 itself and powers off.

        .set BOOT, 0x7c00
        .set CODE32, 0x08
        .set DATA32, 0x10
        .set CODE16, 0x18
        .set DATA16, 0x20
        .set ELF32_ENTRY, 0x18

        .section .boot, "awx", @progbits
        .code16
        .globl boot_sector
boot_sector:
        ljmp    $0, $real_start

        .org    0x10
chunks:         .word 0
kernel_packet:  .byte 0x10, 0
                .word 64, 0x0000, 0x8000
kernel_lba:     .quad 128
        .org    0x22
command_line_packet:
                .byte 0x10, 0
                .word 63, 0x7e00, 0x0000
                .quad 1
        .org    0x32
kernel_target:  .long 0x100000

real_start:
        cli
        cld
        xorw    %ax, %ax
        movw    %ax, %ss
        movw    $BOOT, %sp
        movw    %ax, %ds
        inb     $0x92, %al              # the fast A20 gate; bit 0 would reset the machine
        orb     $2, %al
        andb    $0xfe, %al
        outb    %al, $0x92
        lgdtl   gdt_pointer
        movl    %cr0, %eax
        orb     $1, %al
        movl    %eax, %cr0
        ljmpl   $CODE32, $load

        .code32
load:
        call    flat_segments
        movl    $command_line_packet, %esi
        call    bios_read
        movl    kernel_target, %edi
        movw    chunks, %bx
next_chunk:
        movl    $kernel_packet, %esi
        call    bios_read
        movl    $0x80000, %esi
        movl    $0x2000, %ecx
        rep movsl
        addl    $64, kernel_lba
        decw    %bx
        jnz     next_chunk
        incb    guest_loaded
        movl    $bios_read, %eax
        movl    kernel_target, %edx
        jmp     *ELF32_ENTRY(%edx)

# In: %esi, a packet below 64 KiB. Out: %eax, 0 or the BIOS's status byte. Everything else is kept.
# Goes down to real mode for the call, and comes back; not where a read fails before there is a guest to come back to.
bios_read:
        pushal
        ljmpl   $CODE16, $leave_protected
        .code16
leave_protected:
        movw    $DATA16, %ax            # segments of 64 KiB, whose limits real mode keeps
        call    set_segments
        movl    %cr0, %eax
        andb    $0xfe, %al
        movl    %eax, %cr0
        ljmp    $0, $real_read
real_read:
        xorw    %ax, %ax
        call    set_segments
        sti
        movb    $0x42, %ah
        movb    $0x80, %dl              # OSv asks for drive 0x80 too, whatever it was booted from
        int     $0x13
        cli
        cld
        movzbl  %ah, %ebx
        jc      refused
        xorl    %ebx, %ebx              # without carry the status means nothing
        jmp     enter_protected
refused:
        cmpb    $0, guest_loaded
        je      read_failed
enter_protected:
        movl    %cr0, %eax
        orb     $1, %al
        movl    %eax, %cr0
        ljmpl   $CODE32, $back

        .code32
back:
        call    flat_segments
        movl    %ebx, 28(%esp)          # where popal takes %eax from
        popal
        ret
flat_segments:
        movl    $DATA32, %eax
set_segments:                           # the same bytes in both modes
        movl    %eax, %ds
        movl    %eax, %es
        movl    %eax, %ss
        ret

# error=read lba=0x<16 digits> status=0x<2 digits>: the packet at %si, the status in %bl
        .code16
read_failed:
        leaw    8(%si), %di
        movw    $failure, %si
        call    print
        movw    $8, %cx
        call    print_bytes
        call    print                   # goes on behind the first string's end
        pushw   %bx
        movw    %sp, %di
        movw    $1, %cx
        call    print_bytes
        movb    $'\n', %al
        call    put
        movw    $0x604, %dx             # PM1a control of QEMU's pc: sleep type 0, sleep enable
        movw    $0x2000, %ax
        outw    %ax, %dx
halt:   hlt
        jmp     halt

# The %cx bytes at %di, the highest first: one little-endian number, in hex
print_bytes:
        addw    %cx, %di
1:      decw    %di
        movb    (%di), %al
        pushw   %ax
        shrb    $4, %al
        call    digit
        popw    %ax
        andb    $15, %al
        call    digit
        loop    1b
        ret
digit:
        addb    $'0', %al
        cmpb    $'9', %al
        jbe     put
        addb    $'a' - '9' - 1, %al
put:
        movb    $1, %ah                 # the BIOS writes to its first serial port
        xorw    %dx, %dx
        int     $0x14
        ret
1:      call    put
print:
        lodsb
        testb   %al, %al
        jnz     1b
        ret

failure:        .asciz "error=read lba=0x"
                .asciz " status=0x"
guest_loaded:   .byte 0

        .balign 4
gdt:            .quad 0
                .quad 0x00cf9a000000ffff        # code, 4 GiB
                .quad 0x00cf92000000ffff        # data, 4 GiB
                .quad 0x00009a000000ffff        # code, 64 KiB, 16 bits
                .quad 0x000092000000ffff        # data, 64 KiB
gdt_pointer:    .word gdt_pointer - gdt - 1
                .long gdt

        .org    0x1b8
        .ascii  "VSO\0"
        .org    0x1fe
        .byte   0x55, 0xaa
