"""The part of a frame that is shown, and which way up it is."""

import dataclasses
from fractions import Fraction

import av
import numpy as np
from av.video.reformatter import ColorRange

Cropping = tuple[int, int, int, int]
"""Pixels to leave out: left, top, right, bottom."""

UNSPECIFIED = 2
"""H.273's number of a matrix that is not said."""


@dataclasses.dataclass(frozen=True)
class Orientation:
    """One of the eight ways in which a picture can be turned and mirrored.

    Attributes:
      turned: whether rows become columns; that comes first.
      mirrored: whether left and right are exchanged.
      upside_down: whether top and bottom are exchanged.
    """

    turned: bool = False
    mirrored: bool = False
    upside_down: bool = False

    def apply(self, plane: np.ndarray) -> np.ndarray:
        """Returns a copy of a plane (H, W), upright: (W, H) where it is turned."""
        rows = plane.T if self.turned else plane
        return np.array(rows[:: -1 if self.upside_down else 1, :: -1 if self.mirrored else 1], order="C")


def orientation_of(frame: av.VideoFrame) -> Orientation:
    """The orientation that is nearest to a frame's display matrix.

    A matrix (a, b, u, c, d, v, x, y, w) shows the pixel (x, y) at (a x + c y, b x + d y), by ISO 14496-12, 6.2.2.
    """
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return Orientation()
    a, b, _, c, d = np.frombuffer(matrix, np.int32).astype(float)[:5]
    if abs(b) + abs(c) > abs(a) + abs(d):
        return Orientation(turned=True, mirrored=c < 0, upside_down=b < 0)
    return Orientation(mirrored=a < 0, upside_down=d < 0)


class Cutter:
    """Cuts away what containers say is not shown, and takes one field of interlaced frames.

    The two fields of a frame are of different times, and FFmpeg's scaler would shrink each for itself: whatever moves
    would have the edges of a comb in the small picture. One field has half of the lines, which small pictures do with.

    Args:
      cropping: to leave out, of frames of the file's size.
    """

    def __init__(self, cropping: Cropping = (0, 0, 0, 0)):
        self._cropping = cropping
        self._graph, self._setup = None, None

    def size(self, frame: av.VideoFrame) -> tuple[int, int]:
        """Width and height in pixels that are left of a frame; all of it where the cropping would leave nothing."""
        left, top, right, bottom = self._cropping
        width, height = frame.width - left - right, frame.height - top - bottom
        return (width, height) if width > 0 and height > 0 else (frame.width, frame.height)

    def cut(self, frame: av.VideoFrame) -> av.VideoFrame:
        """Returns what is shown of a frame, without a copy of its pixels unless FFmpeg has to repack their format."""
        width, height = self.size(frame)
        if (width, height) == (frame.width, frame.height) and not frame.interlaced_frame:
            return frame
        setup = frame.width, frame.height, frame.format.name, frame.interlaced_frame
        if setup != self._setup:
            self._graph, self._setup = self._new_graph(frame, width, height), setup
        tags = frame.colorspace, frame.color_range
        # Formats such as yuyv422 are repacked before they are cut; with tags, FFmpeg converts their colors meanwhile.
        frame.colorspace, frame.color_range = UNSPECIFIED, ColorRange.UNSPECIFIED
        self._graph.vpush(frame)
        shown = self._graph.vpull()
        for tagged in (frame, shown):
            tagged.colorspace, tagged.color_range = tags
        return shown

    def _new_graph(self, frame: av.VideoFrame, width: int, height: int) -> av.filter.Graph:
        left, top = self._cropping[:2] if (width, height) != (frame.width, frame.height) else (0, 0)
        graph = av.filter.Graph()
        nodes = [
            graph.add_buffer(
                width=frame.width, height=frame.height, format=frame.format.name, time_base=Fraction(1, 1_000)
            ),
            graph.add("crop", f"{width}:{height}:{left}:{top}:exact=1"),
        ]
        if frame.interlaced_frame:
            nodes.append(graph.add("field", "top"))
        graph.link_nodes(*nodes, graph.add("buffersink")).configure()
        return graph
