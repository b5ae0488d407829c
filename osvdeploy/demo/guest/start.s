# The entry named in the ELF header. The boot sector leaves 32-bit protected mode, flat segments, a stack below 0x7c00,
# interrupts off, and in %eax the address of its bios_read.

        .section .start, "ax", @progbits
        .code32
        .globl  guest_start
guest_start:
        pushl   %eax
        call    guest_main
1:      hlt
        jmp     1b

# unsigned call_bios_read(void *bios_read, struct packet *packet): the status, 0 where the read went well
        .globl  call_bios_read
call_bios_read:
        pushl   %esi
        movl    12(%esp), %esi
        movl    8(%esp), %eax
        call    *%eax
        popl    %esi
        ret

        .section .note.GNU-stack, "", @progbits
