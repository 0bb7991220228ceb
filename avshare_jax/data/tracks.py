"""One stream of a file while it is decoded: where its frames lie in time, and how much of it is damaged."""

import av
from av.stream import Disposition

GAP_TOLERANCE = 0.05
"""Seconds by which sound may be off its time stamp before silence is put in, or samples are left out."""

LATE = 0.25
"""Seconds after the file's start from which a stream's start is worth a note."""

LONGEST_JUMP = 60.0
"""Seconds from one frame to the next, or from the start to the first, above which something else has to agree."""

LONGEST_PAUSE = 600.0
"""Seconds for which a stream may pause that has no other beside it."""

DAMAGE_LIMIT = 0.1
"""Share of damaged packets above which a stream is not used."""


def _usable_stream(container: av.container.InputContainer, kind: str) -> tuple[av.stream.Stream | None, str]:
    """Returns the first stream of a kind that can be decoded, or None and a sentence that says why there is none."""
    problem = f"There is no {kind} stream."
    for stream in container.streams:
        if stream.type != kind:
            continue
        if stream.disposition & Disposition.attached_pic:
            problem = "The only image is an attached picture, such as cover art."
        elif stream.codec_context is None:
            problem = f"The {kind} stream has a codec that cannot be decoded."
        else:
            return stream, ""
    return None, problem


class Track:
    """One stream while it is decoded: places its frames in time, for a subclass's `add`, and counts the damage.

    Attributes:
      stream: the stream, or None.
      problem: why the stream gives nothing, a sentence; empty where it does.
      notes: sentences about what is odd but usable.
      end: seconds from time zero at which what has been decoded ends.
      done: whether nothing more is wanted.
      cut: whether that is because `max_seconds` are full.
      present: whether the file has such a stream.
      beside: the other stream that is decoded from the file, if one is; its time tells a pause from a wrong time stamp.
    """

    KIND, NAME = "", ""

    def __init__(self, container: av.container.InputContainer, zero: float, max_seconds: float):
        self.stream, self.problem = _usable_stream(container, self.KIND)
        self.notes: list[str] = []
        self.max_seconds, self.end, self.cut = max_seconds, 0.0, False
        self.present = self.stream is not None
        self.done = not self.present
        self.beside: Track | None = None
        self._zero, self._frames, self._packets, self._bad = zero, 0, 0, 0
        # AVI numbers frames in the order in which they are decoded; they are shown later than that, by a delay.
        self._by_dts, self._first_dts, self._delay = container.format.name == "avi", None, 0
        if self.stream is not None:
            self._tick = float(self.stream.time_base)
            self.stream.codec_context.thread_count = 1  # Files, not frames, are decoded in parallel.

    def decode(self, packet: av.Packet | None) -> None:
        """Takes in one packet, or None for what the decoder holds back at the end."""
        if self.done:
            return
        if packet is not None:
            if not self._packets and packet.has_sidedata("encryption_info"):
                self._give_up("it is encrypted")
                return
            self._packets += 1
            self._first_dts = packet.dts if self._first_dts is None else self._first_dts
            self.prepare(packet)
        try:
            for frame in self.stream.codec_context.decode(packet):
                if frame.is_corrupt:
                    self._bad += 1
                elif not self.done:
                    self._take(frame)
        except MemoryError:  # FFmpeg's is one of its other errors, too.
            raise
        except av.error.FFmpegError:
            self._bad += 1

    def prepare(self, packet: av.Packet) -> None:
        """Sets the decoder up for one packet."""

    def _take(self, frame: av.frame.Frame) -> None:
        time = self._time(frame)
        if abs(time - self.end) > LONGEST_JUMP and not self.is_pause(time):
            self._give_up(f"its time stamps jump by {time - self.end:.0f} s at {self.end:.1f} s")
            return
        if not self._frames and time > LATE:
            self.notes.append(f"The {self.NAME} starts {time:.2f} s late.")
        self.add(frame, min(time, self.max_seconds + 1))  # No silence is put in for what is left out.
        self._frames += 1
        if self.end > self.max_seconds + GAP_TOLERANCE and not self.done:
            self.done = self.cut = True
            self.notes.append(f"Of the {self.NAME}, only the first {self.max_seconds:g} s are used.")

    def is_pause(self, until: float) -> bool:
        """Whether it can be that nothing happens in the stream until then, as in the recording of a screen.

        The other stream has to go on meanwhile. If there is none, nothing can say whether a short pause is one.
        """
        if self.beside is None or not self.beside.present:
            return 0 <= until - self.end <= LONGEST_PAUSE
        return until >= self.end and (self.beside.cut or self.beside.end >= until - LONGEST_JUMP)

    def _time(self, frame: av.frame.Frame) -> float:
        """Seconds from time zero at which a frame starts; one without time stamp follows on the one before."""
        stamp = frame.dts if self._by_dts else frame.pts
        if self._by_dts and stamp is not None:
            if not self._frames:
                self._delay = stamp - self._first_dts
            stamp -= self._delay
        return self.end if stamp is None else stamp * self._tick - self._zero

    def _give_up(self, why: str) -> None:
        self.problem, self.done = f"The {self.KIND} stream is not usable: {why}.", True

    def _check_damage(self) -> None:
        """Notes damage; one bad packet, such as the last of a truncated file, may always be."""
        if self.problem:
            return
        damage = f"{self._bad} of {self._packets} packets are damaged"
        if self._bad > max(1, DAMAGE_LIMIT * self._packets):
            self._give_up(damage)
        elif self._bad:
            self.notes.append(f"In the {self.KIND} stream, {damage}.")
        if not self.problem and not self._frames:
            self._give_up("there is nothing in it")
