// Options of the sanitizers' run-time for the three executables; see sanitizer.h. It calls these
// before main, because a caged process has no environment to read them from.
#ifdef RAVELIN_SANITIZE

// No leak check and no symbols: both start processes. A report is addresses within named modules,
// of which addr2line makes lines. Signals are the product's own, and so are its threads' stacks.
extern "C" const char* __asan_default_options();
extern "C" const char* __asan_default_options() {
  return "detect_leaks=0:symbolize=0:use_sigaltstack=0:handle_segv=0:handle_sigbus=0:handle_abort="
         "0:"
         "handle_sigill=0:handle_sigfpe=0:exitcode=124";
}
extern "C" const char* __ubsan_default_options();
extern "C" const char* __ubsan_default_options() {
  return "symbolize=0:print_stacktrace=1:exitcode=124";
}

#endif
