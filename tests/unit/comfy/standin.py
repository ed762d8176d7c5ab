"""A stand-in for ComfyUI's process: serves /system_stats, and misbehaves on demand. A script of its own."""

from __future__ import annotations

import argparse
import ctypes
import http.server
import json
import platform
import signal
import subprocess
import sys
import threading


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps({"system": {"comfyui_version": "0.0.0"}, "devices": []}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    parser.add_argument("--state")
    parser.add_argument("--never-ready", action="store_true")
    parser.add_argument("--deaf-to-sigterm", action="store_true")
    parser.add_argument("--survives-its-main-thread", action="store_true", help="which SIGUSR1 ends")
    parser.add_argument("--children", action="store_true", help="start two, one of them in a session of its own")
    flags = parser.parse_args()
    if flags.deaf_to_sigterm:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if flags.children:
        nap = [sys.executable, "-c", "import signal; signal.pause()"]
        children = [subprocess.Popen(nap), subprocess.Popen(nap, start_new_session=True)]
        print("children", *(child.pid for child in children), flush=True)
    if flags.never_ready:
        print("loading for ever", flush=True)
        threading.Event().wait()
    if flags.survives_its_main_thread:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    server = threading.Thread(target=http.server.ThreadingHTTPServer(("127.0.0.1", flags.port), Answer).serve_forever)
    server.start()
    if flags.survives_its_main_thread:
        signal.sigwait([signal.SIGUSR1])
        ctypes.CDLL(None).syscall(93 if platform.machine() == "aarch64" else 60, 0)  # exit(2): of this thread alone
    server.join()


if __name__ == "__main__":
    main()
