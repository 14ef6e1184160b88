// vitlet in C on a Raspberry Pi 3 without an operating system: no allocator, no C library. All memory is in the arrays
// below.
//
// Boot code and memory map come from the Rust image (boards/raspberry-pi/image: src/boot.s, image.ld). They leave a
// core at EL1 with FP/SIMD, MMU and caches on, a stack and a zeroed .bss, and call kernel_main().

#include <vitlet.h>

// MODEL and PICTURE: paths of a model file and of a binary PPM (P6), put in by the assembler.
__asm__(".section .rodata\n"
        ".balign 64\n"
        ".global model_start, model_end, picture_start, picture_end\n"
        "model_start: .incbin \"" MODEL "\"\n"
        "model_end:\n"
        "picture_start: .incbin \"" PICTURE "\"\n"
        "picture_end: .byte 0\n"
        ".previous\n");
extern const unsigned char model_start[], model_end[], picture_start[], picture_end[];

static _Alignas(VITLET_ALIGNMENT) unsigned char model_memory[VITLET_MODEL_BYTES];
static _Alignas(VITLET_ALIGNMENT) unsigned char session_memory[8 << 20];

// The console: UART0, a PL011 (BCM2837 ARM Peripherals, 6.1 and 13.4), at 115,200 baud from a clock of 48 MHz.
#define REGISTER(address) (*(volatile uint32_t *)(uintptr_t)(address))
#define GPFSEL1 REGISTER(0x3f200004)
#define UART_DR REGISTER(0x3f201000)
#define UART_FR REGISTER(0x3f201018)
#define UART_IBRD REGISTER(0x3f201024)
#define UART_FBRD REGISTER(0x3f201028)
#define UART_LCRH REGISTER(0x3f20102c)
#define UART_CR REGISTER(0x3f201030)
enum { FR_BUSY = 1 << 3, FR_TX_FULL = 1 << 5, LCRH_8_BITS_FIFO = 7 << 4, CR_ON = 1 | 1 << 8 | 1 << 9 };

static void console_start(void) {
    GPFSEL1 = (GPFSEL1 & ~(077u << 12)) | 044u << 12; // GPIO14 and 15: ALT0
    UART_CR = 0;
    UART_IBRD = 26;
    UART_FBRD = 3;
    UART_LCRH = LCRH_8_BITS_FIFO;
    UART_CR = CR_ON;
}

static void print(const char *text) {
    for (; *text; text++) {
        while (UART_FR & FR_TX_FULL) {
        }
        UART_DR = (uint32_t)(unsigned char)*text;
    }
}

// At least `digits` digits of a number in base 10 or 16.
static void print_number(uint64_t number, unsigned base, unsigned digits) {
    char text[21] = {0};
    char *start = text + sizeof text - 1;
    for (; number > 0 || digits > 0; number /= base, digits -= digits > 0) {
        *--start = "0123456789abcdef"[number % base];
    }
    print(start);
}

// Ends QEMU by semihosting (SYS_EXIT). On a board that is an undefined instruction, and fault() halts.
static void stop(uint64_t status) {
    const uint64_t block[2] = {0x20026, status};
    while (UART_FR & FR_BUSY) {
    }
    register uint64_t operation __asm__("x0") = 0x18;
    register const uint64_t *argument __asm__("x1") = block;
    __asm__ volatile("hlt #0xf000" : : "r"(operation), "r"(argument) : "memory");
    for (;;) {
        __asm__ volatile("wfe");
    }
}

// All exception vectors of boot.s come here.
void fault(uint64_t kind, uint64_t esr, uint64_t elr, uint64_t far);
void fault(uint64_t kind, uint64_t esr, uint64_t elr, uint64_t far) {
    static int faulted;
    if (!faulted++ && *(const uint32_t *)elr != 0xd45e0000) {
        print("\r\nfault: vector ");
        print_number(kind, 10, 2);
        print("  ESR ");
        print_number(esr, 16, 8);
        print("  ELR ");
        print_number(elr, 16, 16);
        print("  FAR ");
        print_number(far, 16, 16);
        print("\r\n");
        stop(1);
    }
    for (;;) {
        __asm__ volatile("wfe");
    }
}

static void check(const vitlet_error *error, const char *what) {
    if (error->status != VITLET_STATUS_OK) {
        print("error: ");
        print(what);
        print(": ");
        print(error->text);
        print("\r\n");
        stop(1);
    }
}

// The header of the PPM: "P6", width, height, 255, one white space each; the pixels follow.
static vitlet_picture picture_from_ppm(const unsigned char *ppm) {
    uint32_t numbers[3] = {0};
    ppm += 3;
    for (int i = 0; i < 3; i++) {
        for (; *ppm >= '0' && *ppm <= '9'; ppm++) {
            numbers[i] = numbers[i] * 10 + (*ppm - '0');
        }
        ppm++;
    }
    vitlet_picture picture = {.format = VITLET_FORMAT_RGB8, .width = numbers[0], .height = numbers[1], .planes = {ppm}};
    if (ppm + (size_t)numbers[0] * numbers[1] * 3 != picture_end) {
        print("error: the picture is no PPM of this form\r\n");
        stop(1);
    }
    return picture;
}

void kernel_main(void);
void kernel_main(void) {
    console_start();
    print("vitlet ");
    print(vitlet_version());
    print(" in C\r\n");

    vitlet_error error;
    vitlet_model *model;
    const size_t model_bytes = (size_t)(model_end - model_start);
    vitlet_model_parse(model_memory, sizeof model_memory, model_start, model_bytes, &model, &error);
    check(&error, "model");
    const vitlet_picture picture = picture_from_ppm(picture_start);
    const vitlet_options options = {.max_picture_width = picture.width, .max_picture_height = picture.height};
    vitlet_session *session;
    vitlet_session_open(model, &options, session_memory, sizeof session_memory, &session, &error);
    check(&error, "session");
    vitlet_run_picture(session, &picture, &error);
    check(&error, "picture");

    size_t len, count;
    const float *logits = vitlet_output_data(session, 0, &len);
    vitlet_guess best[5];
    vitlet_top_k(model, logits, len, best, sizeof best[0], 5, &count);
    for (size_t i = 0; i < count; i++) {
        char label[64];
        const unsigned basis_points = (unsigned)(best[i].probability * 10000.0f + 0.5f);
        vitlet_model_label(model, best[i].index, label, sizeof label);
        print(basis_points < 1000 ? "    " : "   ");
        print_number(basis_points / 100, 10, 1);
        print(".");
        print_number(basis_points % 100, 10, 2);
        print(" %  ");
        print(label);
        print("\r\n");
    }
    print("  digest ");
    print_number(vitlet_digest(logits, len), 16, 16);
    print("\r\n");
    stop(0);
}

// This example leaves the other cores where the firmware has parked them; boot.s has a way in for them.
void secondary_main(void);
void secondary_main(void) {
    for (;;) {
        __asm__ volatile("wfe");
    }
}
