/* The linked vDSO as bytes of the sentry. */
  .section .rodata, "a"
  .balign 4096
  .globl ravelin_vdso_start
  .globl ravelin_vdso_end
ravelin_vdso_start:
  .incbin RAVELIN_VDSO_FILE
ravelin_vdso_end:
  .section .note.GNU-stack, "", @progbits
