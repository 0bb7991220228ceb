"""Everything that folders of real videos hold, generated: the corpus of kinds of files, and what becomes of each.

`python -m tests.data.hostile` prints docs/hostile_media.md.
"""

import contextlib
import dataclasses
import os
import struct
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.stream import Disposition

from avshare_jax.data.outcomes import NO_AUDIO, NO_VIDEO, REJECTED, USED

FPS, RATE = 16, 16_000
MAX_SECONDS, MIN_SECONDS = 4.0, 1.0


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
      name: what is special about it.
      outcome: what has to become of it.
      says: what the reason and the notes have to contain; where it is empty, there must be neither.
      make: writes such a file into a folder and returns its path.
      size: width and height of its frames, the shorter side 32.
      seconds: that it has to last.
    """

    name: str
    outcome: str
    says: str
    make: Callable[[Path], Path]
    size: tuple[int, int] = (43, 32)
    seconds: float = 2.0


CORPUS: list[Kind] = []


def kind(name: str, outcome: str = USED, says: str = "", **facts) -> Callable:
    """Adds a function that writes a file to the corpus."""

    def add(make: Callable[[Path], Path]) -> Callable[[Path], Path]:
        CORPUS.append(Kind(name, outcome, says, make, **facts))
        return make

    return add


def moving_image(seconds: float = 2.0, width: int = 64, height: int = 48, fps: float = FPS) -> np.ndarray:
    """Frames (N, H, W, 3) uint8: a bright square that goes over a pattern."""
    count = round(seconds * fps)
    pattern = np.random.default_rng(0).integers(0, 120, (6, 8, 3), dtype=np.uint8)
    frames = np.repeat(cv2.resize(pattern, (width, height))[None], count, axis=0)
    side = max(4, min(width, height) // 3)
    for index, frame in enumerate(frames):
        left = (index * 3) % max(1, width - side)
        frame[height // 3 : height // 3 + side, left : left + side] = 250
    return frames


def sound(seconds: float = 2.0, rate: int = RATE, channels: int = 1) -> np.ndarray:
    """A waveform (channels, N) float32: tones with noise."""
    time = np.arange(round(seconds * rate)) / rate
    noise = 0.02 * np.random.default_rng(1).standard_normal((channels, len(time)))
    return np.float32(0.3 * np.sin(2 * np.pi * 440 * time) * (1 + np.sin(9 * time)) / 2 + noise)


def write(
    path: Path,
    frames: np.ndarray | None = None,
    waveform: np.ndarray | None = None,
    *,
    fps: Fraction | int = FPS,
    times: Iterable[float] | None = None,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    audio_codec: str = "aac",
    rate: int = RATE,
    layout: str = "mono",
    audio_times: Callable[[float], float] = lambda seconds: seconds,
    container_options: dict[str, str] | None = None,
    set_up: Callable[[av.video.stream.VideoStream], None] = lambda stream: None,
    copies: int = 1,
) -> Path:
    """Writes a media file.

    Args:
      path: of the file; the name's ending chooses the container.
      frames: (N, H, W, 3) uint8 RGB, or None for no video stream.
      waveform: (channels, N) float32, or None for no audio stream.
      fps: frames per second.
      times: seconds of each frame; by default they follow `fps`.
      codec: of the video.
      pix_fmt: of the video.
      options: of the video encoder.
      audio_codec: of the sound.
      rate: samples per second of the sound.
      layout: of its channels.
      audio_times: the time that 0.1 s of sound claim, by the time at which they are.
      container_options: of the muxer.
      set_up: is called with each video stream before anything is written.
      copies: how often every stream is there.
    """
    defaults = {"preset": "ultrafast", "crf": "16"} if codec == "libx264" else {}
    with plain_priority(), av.open(path, "w", options=container_options or {}) as container:
        videos = [] if frames is None else range(copies)
        videos = [container.add_stream(codec, rate=fps, options=defaults | (options or {})) for _ in videos]
        for video in videos:
            video.height, video.width = frames.shape[1:3]
            video.pix_fmt = pix_fmt
            video.codec_context.thread_count = 1  # The same bytes on every machine.
            if times is not None:
                video.codec_context.time_base = Fraction(1, 1_000)
            set_up(video)
        audios = [] if waveform is None else range(copies)
        audios = [container.add_stream(audio_codec, rate=rate, layout=layout, bit_rate=64_000) for _ in audios]
        packets = [
            *(packet for video in videos for packet in _video_packets(video, frames, fps, times)),
            *(packet for audio in audios for packet in _audio_packets(audio, waveform, rate, layout, audio_times)),
        ]
        # Sorted by time, as the muxers that cannot do it themselves need them.
        container.mux(sorted(packets, key=lambda packet: float((packet.dts or 0) * packet.time_base)))
    return path


@contextlib.contextmanager
def plain_priority() -> Iterator[None]:
    """Gives this thread the priority back that it had: as root, SVT-AV1 takes the highest of real time for its caller.

    What is done after that, and all processes that are started, would keep everything else from the cores.
    """
    policy = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, *policy)


def _video_packets(video, frames: np.ndarray, fps, times: Iterable[float] | None) -> list[av.Packet]:
    packets = []
    stamps = range(len(frames)) if times is None else [round(1_000 * time) for time in times]
    for stamp, image in zip(stamps, frames, strict=True):
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        frame.time_base = 1 / Fraction(fps) if times is None else Fraction(1, 1_000)
        frame.pts = stamp
        packets += video.encode(frame)
    return packets + video.encode(None)


def _audio_packets(audio, waveform: np.ndarray, rate: int, layout: str, times: Callable) -> list[av.Packet]:
    packets, step = [], rate // 10
    wanted = audio.codec_context.format.name
    convert = av.AudioResampler(format=wanted, layout=layout, rate=rate, frame_size=None)
    for start in range(0, waveform.shape[1], step):
        # Packed, because PyAV cannot write eight planes.
        packed = np.ascontiguousarray(waveform[:, start : start + step].T).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(packed, format="flt", layout=layout)
        frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
        frame.pts = round(times(start / rate) * rate)
        for converted in convert.resample(frame):
            packets += audio.encode(converted)
    return packets + audio.encode(None)


def ordinary(folder: Path, name: str = "video.mp4", **options) -> Path:
    """Writes two seconds of moving image with sound."""
    return write(folder / name, moving_image(), sound(), **options)


def patch(path: Path, old: bytes, new: bytes) -> Path:
    """Replaces bytes by as many others, everywhere in a file."""
    content = path.read_bytes()
    if old not in content or len(old) != len(new):
        raise ValueError(f"{old} is not in {path}, or not as long as {new}.")
    path.write_bytes(content.replace(old, new))
    return path


def show_by(path: Path, *matrix: int) -> Path:
    """Gives the first track of an mp4 a display matrix: (a, b, c, d) shows (x, y) at (a x + c y, b x + d y)."""
    content = path.read_bytes()
    start = content.index(b"tkhd") + 4 + 4 + 4 * 5 + 8 + 8
    a, b, c, d = (number << 16 for number in matrix)
    written = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content[:start] + written + content[start + len(written) :])
    return path


def clean_aperture(path: Path, width: Fraction | int, height: Fraction | int, right: Fraction, down: Fraction) -> Path:
    """Writes a clean aperture into the first track of an mp4 whose index is at its end.

    Args:
      path: of the file.
      width: of the aperture, in pixels.
      height: the same.
      right: from the middle of the picture to that of the aperture.
      down: the same.
    """
    numbers = [number for part in map(Fraction, (width, height, right, down)) for number in part.as_integer_ratio()]
    box = struct.pack(">I4s8i", 40, b"clap", *numbers)
    content, end = bytearray(path.read_bytes()), 0
    for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1"):
        start = content.index(name, end) - 4
        end = start + 8
        size = struct.unpack_from(">I", content, start)[0]
        struct.pack_into(">I", content, start, size + len(box))
    content[start + size : start + size] = box
    path.write_bytes(content)
    return path


def pixel_crop(path: Path, left: int, top: int, right: int, bottom: int) -> Path:
    """Writes cropping of less than 128 pixels a side into a mkv with one video track."""
    # The display's unit, a number of the track's and empty space, which FFmpeg writes after the picture's size.
    room = bytes.fromhex("54b28104 55ee8100 ec01000000000000020000")
    crops = b"".join(
        element + bytes([0x81, pixels])
        for element, pixels in ((b"\x54\xcc", left), (b"\x54\xbb", top), (b"\x54\xdd", right), (b"\x54\xaa", bottom))
    )
    content = bytearray(path.read_bytes())
    place = content.index(room)
    video = content.rindex(b"\xe0", 0, place)
    content[video + 1] += len(room) - 4  # The unit belonged to the picture already.
    content[place : place + len(room)] = crops + b"\xec\x81\x00"
    path.write_bytes(content)
    return path


def damage(path: Path, stream: str, which: slice) -> Path:
    """Overwrites some packets of an mp4's stream with bytes that no decoder takes."""
    content = bytearray(path.read_bytes())
    with av.open(path) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(**{stream: 0}) if packet.size]
    for position, size in packets[which]:
        content[position + 4 : position + size] = b"\xff" * (size - 4)
    path.write_bytes(content)
    return path


def cut(path: Path, share: float) -> Path:
    """Keeps the first part of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    return path


# Files that are not media, or not whole.


@kind("empty file", REJECTED, "The file is empty.")
def _(folder):
    (folder / "video.mp4").touch()
    return folder / "video.mp4"


@kind("text named .mp4", REJECTED, "The file cannot be read: Invalid data found")
def _(folder):
    (folder / "video.mp4").write_text("<html>This video is not available in your country.</html>\n" * 50)
    return folder / "video.mp4"


@kind("text named .txt, which FFmpeg would draw", REJECTED, "It is text, not media.")
def _(folder):
    (folder / "video.txt").write_text("A man plays the guitar.\n" * 50)
    return folder / "video.txt"


@kind("playlist that leads to other files", REJECTED, "It is text, not media.")
def _(folder):
    ordinary(folder, "other.ts")
    (folder / "video.m3u8").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nother.ts\n#EXT-X-ENDLIST\n")
    return folder / "video.m3u8"


@kind("noise instead of a file's content", REJECTED, "The file cannot be read: Invalid data found")
def _(folder):
    (folder / "video.mp4").write_bytes(np.random.default_rng(0).bytes(5_000))
    return folder / "video.mp4"


@kind("directory named like a video", REJECTED, "It is not a file.")
def _(folder):
    (folder / "video.mp4").mkdir()
    return folder / "video.mp4"


@kind("named pipe, which would be waited for", REJECTED, "It is not a file.")
def _(folder):
    os.mkfifo(folder / "video.mp4")
    return folder / "video.mp4"


@kind("link that leads nowhere", REJECTED, "The file cannot be read: No such file or directory.")
def _(folder):
    (folder / "video.mp4").symlink_to(folder / "gone.mp4")
    return folder / "video.mp4"


@kind("mp4 cut short, its index missing", REJECTED, "The file cannot be read: Invalid data found")
def _(folder):
    return cut(ordinary(folder), 0.6)


@kind("mp4 cut short, its index in front", USED, "by its header it lasts", seconds=1.2)
def _(folder):
    return cut(ordinary(folder, container_options={"movflags": "faststart"}), 0.65)


@kind("mkv cut short", USED, "by its header it lasts", seconds=1.2)
def _(folder):
    return cut(ordinary(folder, "video.mkv"), 0.6)


@kind("ts cut short", USED, "packets are damaged.", seconds=1.2)
def _(folder):
    return cut(ordinary(folder, "video.ts"), 0.6)


@kind("a few damaged frames", USED, "In the video stream, 2 of 32 packets are damaged.")
def _(folder):
    return damage(ordinary(folder, options={"g": "1"}), "video", slice(8, 24, 8))


@kind("damage all over the image", NO_VIDEO, "The video stream is not usable: 8 of 32 packets are damaged.")
def _(folder):
    return damage(ordinary(folder, options={"g": "1"}), "video", slice(2, None, 4))


@kind("damage all over the sound", NO_AUDIO, "packets are damaged.")
def _(folder):
    return damage(ordinary(folder), "audio", slice(2, None, 3))


@kind("damage all over both", REJECTED, "packets are damaged")
def _(folder):
    path = ordinary(folder, options={"g": "1"})
    return damage(damage(path, "audio", slice(2, None, 3)), "video", slice(2, None, 4))


@kind("another container than the name says")
def _(folder):
    return ordinary(folder).rename(folder / "video.avi")


@kind("photograph named .mp4", REJECTED, "it holds a single frame")
def _(folder):
    cv2.imwrite(str(folder / "photo.jpg"), moving_image()[0])
    return (folder / "photo.jpg").rename(folder / "video.mp4")


@kind("animated gif", NO_AUDIO, "There is no audio stream.")
def _(folder):
    return write(folder / "video.gif", moving_image(fps=20), fps=20, codec="gif", pix_fmt="rgb8")


@kind("subtitles", REJECTED, "There is no video stream. There is no audio stream.")
def _(folder):
    (folder / "video.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nHello\n")
    return folder / "video.srt"


# Names.

for _what, _name in {
    "a name in many scripts": "видео 動画 ヴ é 🎻.mp4",
    "a leading dash in the name": "-dQw4w9WgXcQ.mp4",
    "spaces and quotes in the name": " a 'video' \"of\"  mine .mp4",
    "a colon in the name": "http: the movie.mp4",
    "a name that is a pattern for FFmpeg": "100%03d?*[a-z]#1.mp4",
    "a line break in the name": "one\ntwo.mp4",
    "a name that is not UTF-8": os.fsdecode(b"caf\xe9.mp4"),
}.items():
    kind(_what)(lambda folder, name=_name: ordinary(folder).rename(folder / name))


# Streams.


@kind("no sound", NO_AUDIO, "There is no audio stream.")
def _(folder):
    return write(folder / "video.mp4", moving_image())


@kind("no image: wav", NO_VIDEO, "There is no video stream.")
def _(folder):
    return write(folder / "sound.wav", None, sound(), audio_codec="pcm_s16le")


@kind("no image: m4a", NO_VIDEO, "There is no video stream.")
def _(folder):
    return write(folder / "sound.m4a", None, sound())


@kind("mp3 with cover art", NO_VIDEO, "The only image is an attached picture, such as cover art.")
def _(folder):
    return with_cover(folder / "sound.mp3", "libmp3lame")


@kind("mp4 of sound with cover art", NO_VIDEO, "The only image is an attached picture, such as cover art.")
def _(folder):
    return with_cover(folder / "sound.mp4", "aac")


def with_cover(path: Path, audio_codec: str) -> Path:
    """Writes sound with a picture attached to it."""

    def attach(stream):
        stream.disposition = Disposition.attached_pic

    return write(
        path, moving_image()[:1], sound(), codec="mjpeg", pix_fmt="yuvj420p", audio_codec=audio_codec, set_up=attach
    )


@kind("two video and two audio streams: the first of each")
def _(folder):
    return ordinary(folder, "video.mkv", copies=2)


@kind("video codec that nobody knows", NO_VIDEO, "The video stream has a codec that cannot be decoded.")
def _(folder):
    return patch(patch(ordinary(folder), b"avc1", b"qqqq"), b"avcC", b"qqqC")


@kind("encrypted", REJECTED, "The audio stream is not usable: it is encrypted.")
def _(folder):
    keys = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "7" * 32, "encryption_kid": "a" * 32}
    return ordinary(folder, container_options=keys)


# Sound.


@kind("digital silence", NO_AUDIO, "it is digital silence")
def _(folder):
    return write(folder / "video.mp4", moving_image(), np.zeros((1, 2 * RATE), np.float32))


@kind("constant sound", NO_AUDIO, "it is constant, which is not a sound")
def _(folder):
    constant = np.full((1, 2 * RATE), 0.25, np.float32)
    return write(folder / "video.avi", moving_image(), constant, audio_codec="pcm_s16le")


for _what, _codec, _suffix in [("PCM", "pcm_s16le", "mkv"), ("AAC", "aac", "mp4")]:
    kind(f"stereo in antiphase, {_what}", USED, "The channels of the sound cancel each other out: channel 1 of 2")(
        lambda folder, codec=_codec, suffix=_suffix: write(
            folder / f"video.{suffix}",
            moving_image(),
            np.concatenate([sound(), -0.9 * sound()]),
            audio_codec=codec,
            layout="stereo",
        )
    )


@kind("muted half-way", USED, "The sound is silent for")
def _(folder):
    waveform = sound()
    waveform[:, RATE:] = 0
    return write(folder / "video.mp4", moving_image(), waveform)


@kind("samples that are not numbers", USED, "of the samples are not numbers")
def _(folder):
    waveform = sound()
    waveform[:, 5_000:6_000] = np.nan
    waveform[:, 7_000] = np.inf
    return write(folder / "video.mkv", moving_image(), waveform, audio_codec="pcm_f32le")


@kind("sound shorter than the image", USED, "The sound ends after 0.8 s, the image after 2.0 s.")
def _(folder):
    return write(folder / "video.mkv", moving_image(), sound(0.8), audio_codec="pcm_s16le")


@kind("image shorter than the sound", USED, "The image ends after 0.8 s, the sound after 2.0 s.")
def _(folder):
    return write(folder / "video.mkv", moving_image(0.75), sound(2.0), audio_codec="pcm_s16le")


@kind("gap in the time stamps of the sound", USED, "The sound has gaps, 0.5 s in all.", seconds=2.5)
def _(folder):
    late = lambda seconds: seconds + 0.5 * (seconds >= 1.0)  # noqa: E731
    image = moving_image(2.5)
    return write(folder / "video.mkv", image, sound(), audio_codec="pcm_s16le", audio_times=late)


for _what, _rate, _layout, _channels in [
    ("sound in stereo", RATE, "stereo", 2),
    ("sound of 5.1 channels", 48_000, "5.1", 6),
    ("sound of 7.1 channels", 48_000, "7.1", 8),
    ("sound at 8 kHz", 8_000, "mono", 1),
    ("sound at 96 kHz", 96_000, "stereo", 2),
]:
    kind(_what)(
        lambda folder, rate=_rate, layout=_layout, channels=_channels: write(
            folder / "video.mp4", moving_image(), sound(2.0, rate, channels), rate=rate, layout=layout
        )
    )


# Image.


@kind("still picture with sound", NO_VIDEO, "the image never changes (a still picture)")
def _(folder):
    return write(folder / "video.mp4", np.repeat(moving_image()[:1], 32, axis=0), sound())


@kind("still picture without sound", REJECTED, "the image never changes (a still picture)")
def _(folder):
    return write(folder / "video.mp4", np.repeat(moving_image()[:1], 32, axis=0), None)


@kind("black image", NO_VIDEO, "the image never changes (one color)")
def _(folder):
    return write(folder / "video.mp4", np.zeros((32, 48, 64, 3), np.uint8), sound())


@kind("black and silent", REJECTED, "it is digital silence")
def _(folder):
    return write(folder / "video.mp4", np.zeros((32, 48, 64, 3), np.uint8), np.zeros((1, 2 * RATE), np.float32))


@kind("single frame with sound", NO_VIDEO, "it holds a single frame")
def _(folder):
    return write(folder / "video.mp4", moving_image()[:1], sound())


@kind("telephone's rotation by 90 degrees", size=(32, 43))
def _(folder):
    path = ordinary(folder)
    content = path.read_bytes()
    # The track header's matrix maps (x, y) to (-y, x): a quarter turn clockwise, as telephones write it.
    matrix = content.index(b"tkhd") + 4 + 4 + 4 * 5 + 8 + 8
    turned = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 48 << 16, 0, 1 << 30)
    path.write_bytes(content[:matrix] + turned + content[matrix + len(turned) :])
    return path


@kind("display matrix that mirrors and turns", size=(32, 43))
def _(folder):
    return show_by(ordinary(folder), 0, 1, 1, 0)


@kind("clean aperture that is smaller than the image", size=(38, 32))
def _(folder):
    return clean_aperture(ordinary(folder), 48, 40, Fraction(2), Fraction(0))


@kind("Matroska with PixelCrop", size=(38, 32))
def _(folder):
    return pixel_crop(ordinary(folder, "video.mkv"), 8, 4, 8, 4)


@kind("interlaced")
def _(folder):
    return ordinary(folder, options={"flags": "+ildct+ilme"})


def tagged(**tags: int) -> Callable[[av.video.stream.VideoStream], None]:
    """Sets tags of colors, by their numbers in H.273."""

    def set_up(stream):
        for name, number in tags.items():
            setattr(stream.codec_context, name, number)

    return set_up


@kind("colors of BT.709")
def _(folder):
    return ordinary(folder, set_up=tagged(colorspace=1, color_range=1))


@kind("HDR", USED, "The image is HDR (PQ) and not tone-mapped: its contrast is low.")
def _(folder):
    tags = tagged(colorspace=9, color_range=1, color_primaries=9, color_trc=16)
    return ordinary(folder, "video.mkv", pix_fmt="yuv420p10le", set_up=tags)


@kind("color matrix that is not converted", USED, "The image's color matrix (ICtCp) is not converted")
def _(folder):
    return ordinary(folder, "video.mkv", pix_fmt="yuv420p10le", set_up=tagged(colorspace=14, color_range=1))


@kind("pixels that are not square", size=(64, 32))
def _(folder):
    def widen(stream):
        stream.codec_context.sample_aspect_ratio = Fraction(3, 2)

    return ordinary(folder, set_up=widen)


for _what, _width, _height, _format, _size in [
    ("odd width and height", 63, 47, "yuv444p", (43, 32)),
    ("image of 16 x 16 pixels", 16, 16, "yuv420p", (32, 32)),
    ("upright format", 48, 64, "yuv420p", (32, 43)),
    ("10 bits a color", 64, 48, "yuv420p10le", (43, 32)),
    ("gray image", 64, 48, "gray", (43, 32)),
    ("full-range colors", 64, 48, "yuvj420p", (43, 32)),
]:
    kind(_what, size=_size)(
        lambda folder, width=_width, height=_height, pix_fmt=_format: write(
            folder / "video.mp4", moving_image(2.0, width, height), sound(), pix_fmt=pix_fmt
        )
    )


@kind("image too long for its width", NO_VIDEO, "an image of 672 x 32 pixels is too long")
def _(folder):
    return write(folder / "video.mp4", moving_image(2.0, 672, 32), sound())


@kind("image that changes its size", USED, "The image changes its size in the middle of the file.")
def _(folder):
    first = write(folder / "first.ts", moving_image(1.0), sound(1.0))
    later = {"output_ts_offset": "1"}
    second = write(folder / "second.ts", moving_image(1.0, 96, 96), sound(1.0), container_options=later)
    (folder / "video.ts").write_bytes(first.read_bytes() + second.read_bytes())
    return folder / "video.ts"


# Time.


@kind("shorter than a clip", REJECTED, "It lasts 0.50 s; 1 s are the least.")
def _(folder):
    return write(folder / "video.mp4", moving_image(0.5), None)


@kind("longer than the longest", USED, "only the first 4 s are used", seconds=4.0)
def _(folder):
    return write(folder / "video.mp4", moving_image(6.0), sound(6.0))


@kind("variable frame rate")
def _(folder):
    times = np.cumsum(np.random.default_rng(0).integers(10, 120, 40)) / 1_000
    times = (times - times[0]) * 1.95 / (times[-1] - times[0])
    return write(folder / "video.mp4", moving_image(2.5), sound(), times=times)


@kind("file that starts at 100 s")
def _(folder):
    return ordinary(folder, "video.ts", container_options={"output_ts_offset": "100"})


@kind("image that starts late", USED, "The image starts 0.50 s late.", seconds=2.5)
def _(folder):
    return write(folder / "video.mkv", moving_image(), sound(2.5), times=0.5 + np.arange(32) / FPS)


@kind("sound that starts late", USED, "The sound starts 0.50 s late.", seconds=2.0)
def _(folder):
    return write(folder / "video.mkv", moving_image(), sound(1.5), audio_times=lambda seconds: seconds + 0.5)


@kind("broadcast clock of 33 bits that turns over in mid-file")
def _(folder):
    return ordinary(folder, "video.ts", container_options={"output_ts_offset": str(2**33 / 90_000 - 1)})


@kind("no time stamps: bare H.264", NO_AUDIO, "There is no audio stream.")
def _(folder):
    return write(folder / "video.h264", moving_image())


@kind("time stamps of the image jump by an hour", NO_VIDEO, "its time stamps jump by 3600 s at 1.0 s")
def _(folder):
    times = np.arange(32) / FPS
    return write(folder / "video.mkv", moving_image(), sound(), times=times + 3_600 * (times >= 1))


@kind("time stamps of both jump by an hour", REJECTED, "its time stamps jump by 3600 s at 1.0 s")
def _(folder):
    times = np.arange(32) / FPS
    return write(
        folder / "video.mkv",
        moving_image(),
        sound(),
        times=times + 3_600 * (times >= 1),
        audio_times=lambda seconds: seconds + 3_600 * (seconds >= 1),
    )


@kind("two recordings in one file, time starting again", USED, "overlap and are left out")
def _(folder):
    path = ordinary(folder, "video.ts")
    path.write_bytes(path.read_bytes() * 2)
    return path


# Containers and codecs.

for _suffix, _codec, _audio_codec, _format in [
    ("mov", "prores", "pcm_s16le", "yuv422p10le"),
    ("mov", "libx264", "alac", "yuv420p"),
    ("mp4", "libx265", "aac", "yuv420p"),
    ("mp4", "libsvtav1", "libopus", "yuv420p"),
    ("mkv", "ffv1", "flac", "yuv420p"),
    ("mkv", "libx264", "ac3", "yuv420p"),
    ("webm", "libvpx", "libopus", "yuv420p"),
    ("webm", "libvpx-vp9", "libopus", "yuv420p"),
    ("avi", "mpeg4", "libmp3lame", "yuv420p"),
    ("avi", "mjpeg", "pcm_s16le", "yuvj420p"),
    ("avi", "libx264", "pcm_s16le", "yuv420p"),
    ("mpg", "mpeg1video", "mp2", "yuv420p"),
    ("ts", "mpeg2video", "mp2", "yuv420p"),
    ("wmv", "wmv2", "wmav2", "yuv420p"),
    ("flv", "flv", "libmp3lame", "yuv420p"),
    ("nut", "huffyuv", "pcm_s16le", "yuv422p"),
]:
    kind(f"{_suffix} with {_codec.removeprefix('lib')} and {_audio_codec.removeprefix('lib')}")(
        lambda folder, suffix=_suffix, codec=_codec, audio_codec=_audio_codec, pix_fmt=_format: write(
            folder / f"video.{suffix}",
            moving_image(fps=25),
            sound(2.0, 48_000 if audio_codec == "libopus" else 44_100, 2),
            fps=25,
            layout="stereo",
            codec=codec,
            pix_fmt=pix_fmt,
            audio_codec=audio_codec,
            rate=48_000 if audio_codec == "libopus" else 44_100,
            options={"x265-params": "log-level=none"} if codec == "libx265" else {},
        )
    )


for _suffix, _codec, _audio_codec in [
    ("mxf", "mpeg2video", "pcm_s16le"),
    ("3g2", "mpeg4", "aac"),
    ("wtv", "mpeg2video", "mp2"),
    ("rm", "rv10", "ac3"),
]:
    kind(f"{_suffix} with {_codec} and {_audio_codec}")(
        lambda folder, suffix=_suffix, codec=_codec, audio_codec=_audio_codec: write(
            folder / f"video.{suffix}",
            moving_image(fps=25),
            sound(2.0, 48_000, 2),
            fps=25,
            layout="stereo",
            codec=codec,
            audio_codec=audio_codec,
            rate=48_000,
        )
    )

for _suffix, _audio_codec in [("mka", "flac"), ("aiff", "pcm_s16be"), ("oga", "flac"), ("w64", "pcm_s16le")]:
    kind(f"no image: {_suffix}", NO_VIDEO, "There is no video stream.")(
        lambda folder, suffix=_suffix, codec=_audio_codec: write(
            folder / f"sound.{suffix}", None, sound(), audio_codec=codec
        )
    )


@kind("no sound: m2v", NO_AUDIO, "There is no audio stream.")
def _(folder):
    return write(folder / "video.m2v", moving_image(fps=25), fps=25, codec="mpeg2video")


def table() -> str:
    """The corpus as a table in Markdown."""
    rows = ["| kind of file | outcome | reason or note contains |", "|---|---|---|"]
    rows += [f"| {entry.name} | {entry.outcome} | {entry.says} |" for entry in CORPUS]
    return "\n".join(rows) + "\n"


def document() -> str:
    """docs/hostile_media.md."""
    return INTRODUCTION + table()


INTRODUCTION = f"""# What becomes of each kind of file

Folders of real videos hold everything. This table is the corpus of `tests/data/hostile.py`, printed by
`python -m tests.data.hostile`: the tests generate each kind of file, prepare it, and compare. The report of a data set
says the same of every single file: its outcome, the reason if it was not used or not wholly, and notes on what is odd.
Neither black frames nor silence are ever made up for what is missing; a missing modality is flagged.

* **used**: with image and sound. **used without audio**, **used without video**: one of them is missing, encrypted,
  constant, damaged in more than 1 packet in 10, or its time stamps make no sense. **rejected**: both are, or the file
  is shorter than the shortest.
* Time runs from the start of the file's earliest stream, and image and sound stay where their time stamps say: a gap in
  the sound is silence, and until the next frame is due, the one before stands. What overlaps is left out.
* Frames have the same size for the whole file, upright (turned or mirrored as the file says), with square pixels, and
  without what the container crops (clean aperture of mp4 and mov, PixelCrop of Matroska). Of interlaced frames, one
  field is taken. Transparency is left out.
* Colors are converted to those of JPEG from the matrix and range that the file names. A file that names no matrix is
  taken for BT.709 if its longer side has 1,280 pixels or more, or its shorter side more than 576, before cropping, and
  else for BT.601.
  Untagged gray and all RGB that is not tagged as limited are full range. Primaries and transfer functions stay as they
  are: HDR is not tone-mapped, and noted.
* Channels are averaged. Where the mean, over the whole file, has less than a tenth of the power that it would have if
  the channels had nothing in common (two equal channels with a correlation below -0.9), the loudest channel is taken
  instead, and noted.
* A stream may jump by more than 60 s where the other stream of the file goes on meanwhile, as in a screen recording;
  where there is no other, by up to 600 s. Other jumps are wrong time stamps.
* The corpus is prepared with {MIN_SECONDS:g} s as the shortest and {MAX_SECONDS:g} s as the longest duration.
* Files are taken by their suffix where FFmpeg opens that kind. What looks like media and is of another kind, such as
  `.mid`, `.braw` or bare samples (`.yuv`, `.pcm`), is counted and listed as **rejected**.
* In ids and classes, a byte that is not UTF-8 is written as `\\xe9`, and a control character as `\\u001b`.
* Files that need longer than a limit, or more memory, or crash the decoder, are rejected by the process that prepares
  them. Where 20 in a row fail in the same unforeseen way and none was usable before, preparation stops and says how: it
  is not the files.

"""

if __name__ == "__main__":
    print(document(), end="")
