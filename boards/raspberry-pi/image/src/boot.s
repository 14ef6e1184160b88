// From the firmware to Rust, for every core: down to EL1, FP/SIMD on, MMU and caches on, a stack.
//
// Core 0 enters at _start with the device tree in x0 (what Linux's boot protocol says), the others at _secondary, sent there
// by cores.rs. Register fields: Arm Architecture Reference Manual, DDI 0487, chapter D24.

.section .text.boot, "ax"
.global _start
_start:
    mov     x20, x0                 // the device tree
    bl      core_number
    cbz     x0, 1f
    // Loaders that start all cores here (QEMU, given an ELF file): only core 0 goes on.
0:  wfe
    b       0b
1:  bl      enter_el1
    bl      enable
    // Only now: with the caches off this would take long, and stale lines could cover it.
    ldr     x1, =__bss_start
    ldr     x2, =__bss_end
2:  cmp     x1, x2
    b.hs    3f
    stp     xzr, xzr, [x1], #16
    b       2b
3:  mov     x0, x20
    bl      kernel_main
    b       0b

.global _secondary
_secondary:
    bl      enter_el1
    bl      enable
    bl      core_number
    bl      secondary_main
    b       0b

// x0 = this core's number: MPIDR_EL1.Aff0, or Aff1 on cores that count threads in Aff0 (MT, the Cortex-A76). Changes x1.
core_number:
    mrs     x0, mpidr_el1
    ubfx    x1, x0, #24, #1
    lsl     x1, x1, #3
    lsr     x0, x0, x1
    and     x0, x0, #0xff
    ret

// Goes on at x30 in EL1, from EL3, EL2 or EL1, with interrupts masked. Changes x9 to x11.
enter_el1:
    mov     x11, x30
    mrs     x9, CurrentEL
    cmp     x9, #(3 << 2)
    b.ne    1f
    // Only a loader that is no Pi firmware leaves a core here.
    bl      smp_enable
    mov     x9, #0x5b1              // SCR_EL3: RW, HCE, SMD, RES1, NS
    msr     scr_el3, x9
    msr     cptr_el3, xzr           // FP/SIMD does not trap
    mov     x9, #0x3c9              // EL2h, all masked
    msr     spsr_el3, x9
    adr     x9, 2f
    msr     elr_el3, x9
    eret
1:  cmp     x9, #(2 << 2)
    b.ne    3f
    bl      smp_enable
2:  mov     x9, #(1 << 31)          // HCR_EL2.RW: EL1 is AArch64
    msr     hcr_el2, x9
    mov     x9, #0x33ff             // CPTR_EL2: RES1 only, FP/SIMD does not trap
    msr     cptr_el2, x9
    msr     hstr_el2, xzr
    mrs     x9, pmcr_el0            // MDCR_EL2.HPMN = PMCR_EL0.N: all counters are EL1's
    ubfx    x9, x9, #11, #5
    msr     mdcr_el2, x9
    mov     x9, #3                  // CNTHCTL_EL2: EL1 may read the timers
    msr     cnthctl_el2, x9
    msr     cntvoff_el2, xzr
    mrs     x9, midr_el1
    msr     vpidr_el2, x9
    mrs     x9, mpidr_el1
    msr     vmpidr_el2, x9
    ldr     x9, =0x30d00800         // SCTLR_EL1: RES1 only, MMU and caches off
    msr     sctlr_el1, x9
    mov     x9, #0x3c5              // EL1h, all masked
    msr     spsr_el2, x9
    msr     elr_el2, x11
    eret
3:  msr     daifset, #0xf
    ret     x11

// Joins the coherency of the cluster: CPUECTLR_EL1.SMPEN, which the A53, A57 and A72 need before their caches are on. The Pi's
// own firmware has set it; EL1 could not. Changes x9 and x10.
smp_enable:
    mrs     x9, midr_el1
    ubfx    x9, x9, #4, #12
    cmp     x9, #0xd03
    b.eq    1f
    cmp     x9, #0xd07
    b.eq    1f
    cmp     x9, #0xd08
    b.ne    2f
1:  mrs     x9, S3_1_C15_C2_1
    tbnz    x9, #6, 2f
    orr     x9, x9, #(1 << 6)
    msr     S3_1_C15_C2_1, x9
    isb
2:  ret

// FP/SIMD, vectors, MMU, caches, stack. Changes x0 to x2.
enable:
    mov     x2, x30
    mov     x0, #(3 << 20)          // CPACR_EL1.FPEN
    msr     cpacr_el1, x0
    ldr     x0, =vectors
    msr     vbar_el1, x0
    ldr     x0, =0xff04             // MAIR_EL1: 0 is Device-nGnRE, 1 is Normal, write-back
    msr     mair_el1, x0
    // TCR_EL1: 39 bits (T0SZ 25), 4 KiB granule, walks cacheable and inner shareable, no TTBR1 (EPD1), 40 bits out (IPS 2).
    ldr     x0, =(25 | 1 << 8 | 1 << 10 | 3 << 12 | 1 << 23 | 2 << 32)
    msr     tcr_el1, x0
    ldr     x0, =level1
    msr     ttbr0_el1, x0
    dsb     ish
    tlbi    vmalle1
    ic      iallu
    dsb     ish
    isb
    mrs     x0, sctlr_el1
    ldr     x1, =(1 << 0 | 1 << 2 | 1 << 12)    // M, C, I
    orr     x0, x0, x1
    bic     x0, x0, #2              // A: unaligned accesses are allowed
    msr     sctlr_el1, x0
    isb
    msr     spsel, #1
    bl      core_number
    ldr     x1, =__stacks_end
    sub     x1, x1, x0, lsl #18     // 256 KiB a core
    mov     sp, x1
    ret     x2

// All sixteen vectors say what happened, and stop (fault.rs).
.balign 2048
vectors:
.set kind, 0
.rept 16
    .balign 128
    mov     x0, #kind
    mrs     x1, esr_el1
    mrs     x2, elr_el1
    mrs     x3, far_el1
    bl      fault
    b       .
    .set kind, kind + 1
.endr

// Identity map, the same for every board: level 1 in steps of 1 GiB, level 2 in steps of 2 MiB.
// Normal: write-back, inner shareable, access flag, attribute 1. Device: attribute 0, never executable.
.set normal, 0x705
.set device, 0x60000000000401
.section .data.tables, "aw"
.balign 4096
level1:
    .quad   level2 + 3
    .quad   0, 0
    .quad   0xc0000000 + device     // Pi 4: peripherals at 0xfe000000
    .rept 61
    .quad   0
    .endr
    .quad   0x1040000000 + device   // Pi 5: peripherals at 0x107c000000
    .rept 446
    .quad   0
    .endr
level2:
    .set at, 0
    .rept 192                       // 384 MiB, which every board has for the ARM side
    .quad   at + normal
    .set at, at + 0x200000
    .endr
    .rept 312
    .quad   0
    .endr
    .set at, 0x3f000000             // Pi 3: peripherals
    .rept 8
    .quad   at + device
    .set at, at + 0x200000
    .endr
