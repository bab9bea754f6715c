// SPDX-License-Identifier: Apache-2.0

// daemons KIND leaves at least one process behind that wants to outlive its parent, in one of the ways below, and ends. The
// processes that stay hold nothing of the test: "daemons list" prints the kinds.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

static void forever(void) {
	for (;;)
		pause();
}

static void quiet(void) {
	int null = open("/dev/null", O_RDWR);
	for (int fd = 0; fd < 3; fd++)
		dup2(null, fd);
}

// child returns in the child; the parent ends.
static void child(void) {
	pid_t pid = fork();
	if (pid < 0) {
		perror("fork");
		_exit(1);
	}
	if (pid > 0)
		_exit(0);
}

static void ignore_all(void) {
	for (int s = 1; s < 65; s++)
		signal(s, SIG_IGN);
}

static void block_all(void) {
	sigset_t all;
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
}

static void orphan(void) { child(); forever(); }
static void orphan_quiet(void) { child(); quiet(); forever(); }
static void double_fork(void) { child(); child(); forever(); }
static void daemon_classic(void) { child(); setsid(); child(); if (chdir("/")) _exit(1); umask(0); quiet(); forever(); }
static void daemon_libc(void) { if (daemon(0, 0)) _exit(1); forever(); }
static void session(void) { child(); setsid(); forever(); }
static void group(void) { child(); setpgid(0, 0); forever(); }
static void many_sessions(void) { for (int i = 0; i < 8; i++) { child(); setsid(); } forever(); }
static void deep(void) { for (int i = 0; i < 30; i++) child(); forever(); }
static void wide(void) { for (int i = 0; i < 30; i++) if (fork() == 0) forever(); _exit(0); }
static void tree(void) { for (int i = 0; i < 5; i++) if (fork() < 0) break; forever(); }
static void tree_root(void) { if (fork() == 0) tree(); usleep(1000); _exit(0); }
static void ignoring(void) { child(); ignore_all(); forever(); }
static void blocking(void) { child(); block_all(); forever(); }
static void ignoring_session(void) { child(); setsid(); ignore_all(); block_all(); quiet(); forever(); }
static void handling(void) { child(); for (int s = 1; s < 32; s++) signal(s, (void (*)(int))forever); forever(); }
static void stopped(void) { child(); raise(SIGSTOP); forever(); }
static void stopped_tty(void) { child(); setsid(); raise(SIGTSTP); raise(SIGTTIN); forever(); }
static void stopped_tree(void) { child(); if (fork() == 0) { raise(SIGSTOP); forever(); } raise(SIGSTOP); forever(); }
static void traced(void) {
	child();
	pid_t pid = fork();
	if (pid == 0) {
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		raise(SIGSTOP);
		forever();
	}
	forever();
}
static void traced_exitkill(void) {
	child();
	pid_t pid = fork();
	if (pid == 0)
		forever();
	ptrace(PTRACE_SEIZE, pid, 0, PTRACE_O_TRACEEXIT | PTRACE_O_TRACEFORK);
	forever();
}
static void traced_by_child(void) {
	child();
	pid_t me = getpid();
	if (fork() == 0) {
		ptrace(PTRACE_SEIZE, me, 0, 0);
		ptrace(PTRACE_INTERRUPT, me, 0, 0);
		forever();
	}
	forever();
}
static void zombie_parent(void) { child(); for (int i = 0; i < 20; i++) if (fork() == 0) _exit(0); forever(); }
static void zombie_maker(void) { child(); for (int i = 0; i < 100; i++) { if (fork() == 0) _exit(0); usleep(2000); } forever(); }
static void subreaper(void) { child(); prctl(PR_SET_CHILD_SUBREAPER, 1); if (fork() == 0) { child(); forever(); } forever(); }
static void vforked(void) { pid_t pid = vfork(); if (pid == 0) { execl("/proc/self/exe", "daemons", "sit", NULL); _exit(1); } _exit(0); }
static void vfork_held(void) { child(); if (vfork() == 0) { for (;;) syscall(SYS_pause); } forever(); }
static int sit(void *arg) { (void)arg; forever(); return 0; }
static char stacks[8][65536];
static void cloned(int flags) { if (clone(sit, stacks[0] + sizeof stacks[0], flags, NULL) < 0) { perror("clone"); _exit(1); } _exit(0); }
static void clone_nosignal(void) { cloned(0); }
static void clone_usr1(void) { cloned(SIGUSR1); }
static void clone_vm(void) { child(); clone(sit, stacks[1] + sizeof stacks[1], CLONE_VM | SIGCHLD, NULL); forever(); }
static void clone_files(void) { cloned(CLONE_FILES | CLONE_FS | SIGCHLD); }
static void clone_parent(void) { cloned(CLONE_PARENT | SIGCHLD); }
static void clone_io(void) { cloned(CLONE_IO | CLONE_SYSVSEM | SIGCHLD); }
static void clone_untraced(void) { cloned(CLONE_UNTRACED | SIGCHLD); }
static void clone_sighand(void) { child(); clone(sit, stacks[2] + sizeof stacks[2], CLONE_VM | CLONE_SIGHAND | SIGCHLD, NULL); forever(); }
static void *thread_body(void *arg) { forever(); return arg; }
static void threads(void) { child(); pthread_t t; for (int i = 0; i < 20; i++) pthread_create(&t, NULL, thread_body, NULL); forever(); }
static void main_thread_gone(void) { child(); pthread_t t; pthread_create(&t, NULL, thread_body, NULL); pthread_exit(NULL); }
static void fork_from_thread_body(void) { if (fork() == 0) forever(); }
static void *fork_thread(void *arg) { fork_from_thread_body(); return arg; }
static void fork_from_thread(void) { pthread_t t; pthread_create(&t, NULL, fork_thread, NULL); pthread_join(t, NULL); _exit(0); }
static void renamed(void) { child(); prctl(PR_SET_NAME, "kworker/0:1"); forever(); }
static void argv_emptied(char **argv) { child(); memset(argv[0], 0, strlen(argv[0]) + strlen(argv[1]) + 1); prctl(PR_SET_NAME, ""); forever(); }
static void odd_name(void) { child(); prctl(PR_SET_NAME, ") S 1 1 1\n("); forever(); }
static void undumpable(void) { child(); prctl(PR_SET_DUMPABLE, 0); forever(); }
static void other_user(void) { child(); if (setgid(12345) || setuid(12345)) _exit(1); forever(); }
static void oom_immune(void) { child(); int fd = open("/proc/self/oom_score_adj", O_WRONLY); if (write(fd, "-1000", 5) < 0) {} forever(); }
static void idle(void) { child(); struct sched_param p = {0}; sched_setscheduler(0, SCHED_IDLE, &p); setpriority(PRIO_PROCESS, 0, 19); forever(); }
static void busy(void) { child(); alarm(60); for (;;) {} }
static void busy_threads_body(void) { for (;;) sched_yield(); }
static void *busy_thread(void *arg) { busy_threads_body(); return arg; }
static void busy_threads(void) { child(); pthread_t t; pthread_create(&t, NULL, busy_thread, NULL); busy_threads_body(); }
static void holds_stdout(void) { child(); setsid(); forever(); }
static void writes_stdout(void) { child(); setsid(); for (;;) { if (write(1, "still here\n", 11) < 0) forever(); usleep(100000); } }
static void floods_stdout(void) { child(); signal(SIGPIPE, SIG_IGN); char b[65536]; memset(b, 'x', sizeof b); for (;;) if (write(1, b, sizeof b) < 0) usleep(1000); }
static void passes_stdout(void) {
	int s[2];
	socketpair(AF_UNIX, SOCK_STREAM, 0, s);
	char c[CMSG_SPACE(sizeof(int))] = {0}, b = 'x';
	struct iovec v = {&b, 1};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = c, .msg_controllen = sizeof c};
	struct cmsghdr *h = CMSG_FIRSTHDR(&m);
	h->cmsg_level = SOL_SOCKET, h->cmsg_type = SCM_RIGHTS, h->cmsg_len = CMSG_LEN(sizeof(int));
	int one = 1;
	memcpy(CMSG_DATA(h), &one, sizeof one);
	if (sendmsg(s[0], &m, 0) < 0) _exit(1);
	child();
	quiet();
	forever();
}
static void inotify_waits(void) { child(); int fd = inotify_init(); inotify_add_watch(fd, "/", IN_ALL_EVENTS); char b[4096]; for (;;) if (read(fd, b, sizeof b) < 0) forever(); }
static void epoll_waits(void) { child(); int e = epoll_create1(0); struct epoll_event ev; for (;;) epoll_wait(e, &ev, 1, -1); }
static void timer_waits(void) { child(); int fd = timerfd_create(CLOCK_MONOTONIC, 0); struct itimerspec s = {{1, 0}, {1, 0}}; timerfd_settime(fd, 0, &s, NULL); unsigned long n; for (;;) if (read(fd, &n, sizeof n) < 0) forever(); }
static void eventfd_waits(void) { child(); int fd = eventfd(0, 0); unsigned long n; for (;;) if (read(fd, &n, sizeof n) < 0) forever(); }
static void itimer(void) { child(); signal(SIGALRM, SIG_IGN); struct itimerval v = {{0, 1000}, {0, 1000}}; setitimer(ITIMER_REAL, &v, NULL); forever(); }
static void lock_waits(void) { int fd = open("/tmp/lock", O_CREAT | O_RDWR, 0600); flock(fd, LOCK_EX | LOCK_NB); if (fork() == 0) { fd = open("/tmp/lock", O_RDWR); flock(fd, LOCK_EX); forever(); } child(); forever(); }
static void fifo_waits(void) { mkfifo("/tmp/fifo", 0600); child(); if (open("/tmp/fifo", O_RDONLY) < 0) {} forever(); }
static void pipe_waits(void) { int p[2]; if (pipe(p)) _exit(1); child(); char b; for (;;) if (read(p[0], &b, 1) < 0) forever(); }
static void listens(void) { child(); int s = socket(AF_UNIX, SOCK_STREAM, 0); struct sockaddr_un a = {AF_UNIX, "\0daemon"}; if (bind(s, (void *)&a, sizeof a) == 0) listen(s, 1); for (;;) accept(s, NULL, NULL); }
static void futex_waits(void) { child(); int f = 0; for (;;) syscall(SYS_futex, &f, 0, 0, NULL, NULL, 0); }
static void sem_waits(void) { child(); sigset_t s; sigfillset(&s); sigprocmask(SIG_SETMASK, &s, NULL); siginfo_t i; for (;;) sigwaitinfo(&s, &i); }
static void sleeps(void) { child(); struct timespec t = {1000000, 0}; for (;;) nanosleep(&t, NULL); }
static void memory(void) { child(); char *p = mmap(NULL, 64 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); memset(p, 1, 64 << 20); mlock(p, 64 << 20); forever(); }
static void deleted_program(void) { child(); char b[100]; snprintf(b, sizeof b, "cp /daemons /tmp/gone.%d && /tmp/gone.%d orphan; rm /tmp/gone.%d", getpid(), getpid(), getpid()); if (system(b)) {} forever(); }
static void from_memory(void) { child(); int fd = memfd_create("x", MFD_CLOEXEC), in = open("/proc/self/exe", O_RDONLY); char b[65536]; for (ssize_t n; (n = read(in, b, sizeof b)) > 0;) if (write(fd, b, n) < 0) _exit(1); char *argv[] = {"sit", "sit", NULL}; fexecve(fd, argv, environ); _exit(1); }
static void reexecs(void) { child(); usleep(20000); execl("/proc/self/exe", "daemons", "reexecs-on", NULL); }
static void reexecs_on(void) { usleep(20000); execl("/proc/self/exe", "daemons", "reexecs-on", NULL); }
static void forks_on(void) { child(); for (;;) { if (fork() != 0) _exit(0); } }
static void forks_on_sessions(void) { child(); for (;;) { if (fork() != 0) _exit(0); setsid(); usleep(500); } }
static void forks_on_signal_handler(int s) { (void)s; if (fork() == 0) forever(); }
static void forks_on_signal(void) { child(); for (int s = 1; s < 32; s++) signal(s, forks_on_signal_handler); forever(); }
static void phoenix(void) {
	child();
	for (;;) {
		pid_t pid = fork();
		if (pid == 0) { prctl(PR_SET_PDEATHSIG, 0); forever(); }
		int st;
		waitpid(pid, &st, 0);
	}
}
static void twins(void) { // each starts the other anew when it dies
	child();
	for (;;) {
		int p[2];
		if (pipe(p)) _exit(1);
		if (fork() == 0) { close(p[1]); char b; if (read(p[0], &b, 1) < 0) {} continue; }
		close(p[0]);
		int st;
		wait(&st);
		close(p[1]);
	}
}
static void parent_death(void) { child(); prctl(PR_SET_PDEATHSIG, SIGCONT); signal(SIGCONT, SIG_IGN); forever(); }
static void kills_parent(void) { pid_t me = getpid(); if (fork() == 0) { setsid(); usleep(1000); kill(me, SIGKILL); forever(); } sleep(1); _exit(0); }
static void chrooted(void) { child(); if (chroot("/tmp")) _exit(1); if (chdir("/")) _exit(1); forever(); }
static void unshares(void) { child(); unshare(CLONE_FILES | CLONE_FS | CLONE_SYSVSEM); unshare(CLONE_NEWUSER); unshare(CLONE_NEWNS); unshare(CLONE_NEWPID); if (fork() == 0) forever(); forever(); }
static void pidfd_holder(void) { child(); pid_t pid = fork(); if (pid == 0) forever(); if (syscall(SYS_pidfd_open, pid, 0) < 0) {} kill(pid, SIGSTOP); forever(); }
static void cwd_deleted(void) { child(); char d[] = "/tmp/dXXXXXX"; if (!mkdtemp(d) || chdir(d) || rmdir(d)) _exit(1); forever(); }

static const struct {
	const char *name;
	void (*run)(void);
} kinds[] = {
#define K(f) {#f, f}
	K(orphan), K(orphan_quiet), K(double_fork), K(daemon_classic), K(daemon_libc), K(session), K(group), K(many_sessions), K(deep), K(wide), K(tree_root),
	K(ignoring), K(blocking), K(ignoring_session), K(handling), K(stopped), K(stopped_tty), K(stopped_tree), K(traced), K(traced_exitkill), K(traced_by_child),
	K(zombie_parent), K(zombie_maker), K(subreaper), K(vforked), K(vfork_held), K(clone_nosignal), K(clone_usr1), K(clone_vm), K(clone_files), K(clone_parent),
	K(clone_io), K(clone_untraced), K(clone_sighand), K(threads), K(main_thread_gone), K(fork_from_thread), K(renamed), K(odd_name), K(undumpable), K(other_user),
	K(oom_immune), K(idle), K(busy), K(busy_threads), K(holds_stdout), K(writes_stdout), K(floods_stdout), K(passes_stdout), K(inotify_waits), K(epoll_waits),
	K(timer_waits), K(eventfd_waits), K(itimer), K(lock_waits), K(fifo_waits), K(pipe_waits), K(listens), K(futex_waits), K(sem_waits), K(sleeps), K(memory),
	K(deleted_program), K(from_memory), K(reexecs), K(forks_on), K(forks_on_sessions), K(forks_on_signal), K(phoenix), K(twins), K(parent_death), K(kills_parent),
	K(chrooted), K(unshares), K(pidfd_holder), K(cwd_deleted),
};

int main(int argc, char **argv) {
	if (argc != 2)
		return 2;
	if (!strcmp(argv[1], "sit"))
		forever();
	if (!strcmp(argv[1], "reexecs-on"))
		reexecs_on();
	if (!strcmp(argv[1], "argv_emptied"))
		argv_emptied(argv);
	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
		if (!strcmp(argv[1], "list"))
			puts(kinds[i].name);
		else if (!strcmp(argv[1], kinds[i].name))
			kinds[i].run();
	}
	return strcmp(argv[1], "list") ? 2 : 0;
}
