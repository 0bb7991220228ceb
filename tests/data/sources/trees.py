"""Small trees of annotations and media in the formats of publishers, with what is odd about real ones.

Each function writes a tree below `root`, calls `write_media` with the path of each media file, whose folder is there,
and returns the arguments of the command: the source's name and its options.
"""

from collections.abc import Callable
from pathlib import Path

WriteMedia = Callable[[Path], object]


def write(path: Path, *lines: str, newline: str = "\n", encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(line + newline for line in lines).encode(encoding))
    return path


def write_all(folder: Path, write_media: WriteMedia, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_media(folder / name)


def make_folder(root: Path, write_media: WriteMedia) -> list[str]:
    """Split and class folders."""
    write_all(
        root / "my videos", write_media, "train/dog/-1 ü.mp4", "train/a cat/2.MP4", "train/a cat/3.mov", "val/dog/1.mp4"
    )
    write(root / "my videos" / "train" / "dog" / "notes.txt", "no video")
    return ["folder", f"--videos={root / 'my videos'}"]


def make_folder_with_labels(root: Path, write_media: WriteMedia) -> list[str]:
    """A csv file of labels: BOM, CRLF, a comma in a label, an empty label, files twice, missing and not named."""
    write_all(root / "videos", write_media, "a.mp4", "sub/b.mp4", "c.mp4", "sub/unnamed.mp4")
    rows = [
        "video,label,split",
        'a.mp4,"x, y",train',
        "sub/b.mp4, z,val",
        "c.mp4,,train",
        "gone.mp4,z,train",
        "a.mp4,z,val",
    ]
    labels = write(root / "labels.csv", *rows, newline="\r\n", encoding="utf-8-sig")
    return ["folder", f"--videos={root / 'videos'}", f"--labels={labels}"]


def make_kinetics(root: Path, write_media: WriteMedia) -> list[str]:
    """BOM, CRLF, is_cc, a comma in a label, folders with spaces and underscores, ids with dashes, no test labels."""
    write(
        root / "annotations" / "train.csv",
        "label,youtube_id,time_start,time_end,split,is_cc",
        '"catching or throwing, softball",-_0123456-9,5,15,train,0',
        "playing_guitar,abcdefghijk,0,10,train,1",
        "playing guitar,gone_56789a,27,37,train,0",
        "playing guitar,abcdefghijk,0,10,train,1",
        newline="\r\n",
        encoding="utf-8-sig",
    )
    write(
        root / "annotations" / "validate.csv",
        "label,youtube_id,time_start,time_end,split",
        "playing guitar,bare-name-1,10,20,validate",
    )
    write(root / "annotations" / "test.csv", "youtube_id,time_start,time_end,split", "test_test_1,1000000,1000010,test")
    write_all(
        root / "videos",
        write_media,
        "train/catching or throwing, softball/-_0123456-9_000005_000015.mp4",
        "train/playing_guitar/abcdefghijk_000000_000010.mp4",
        "train/z copy/abcdefghijk_000000_000010.mp4",
        "val/playing guitar/bare-name-1.webm",
        "test_test_1_1000000_1000010.mkv",
        "nobody_knows_000000_000010.mp4",
    )
    return ["kinetics", f"--videos={root / 'videos'}", f"--annotations={root / 'annotations'}"]


def make_pyslowfast(root: Path, write_media: WriteMedia) -> list[str]:
    """Rows `path number`, with spaces in paths; the class 1 is in no list."""
    folder = root / "videos"
    train = write(
        root / "lists" / "train.csv",
        f"{folder}/playing guitar/abcdefghijk_000000_000010.mp4 2",
        "elsewhere/-_0123456-9_000005_000015.mp4 0",
        "elsewhere/gone_56789a_000001_000011.mp4 0",
    )
    val = write(root / "lists" / "val.csv", "short name.mp4,2", newline="\r\n")
    write_all(
        folder,
        write_media,
        "playing guitar/abcdefghijk_000000_000010.mp4",
        "-_0123456-9_000005_000015.mp4",
        "short name.mp4",
    )
    return ["kinetics", f"--videos={folder}", f"--annotations={train}", f"--annotations={val}"]


def make_kinetics_sounds(root: Path, write_media: WriteMedia) -> list[str]:
    """Two of the usual classes and one that is none of them."""
    write(
        root / "train.csv",
        "label,youtube_id,time_start,time_end,split",
        "tap dancing,-tap_dance1,0,10,train",
        "abseiling,abseiling01,0,10,train",
        "blowing nose,blow_nose-1,3,13,train",
        "blowing nose,blow_nose-2,3,13,train",
    )
    write(root / "val.csv", "label,youtube_id,time_start,time_end,split", "blowing nose,blow_nose-3,3,13,validate")
    write_all(
        root / "videos",
        write_media,
        "tap dancing/-tap_dance1_000000_000010.mp4",
        "abseiling/abseiling01_000000_000010.mp4",
        "blowing nose/blow_nose-1_000003_000013.mp4",
        "blowing nose/blow_nose-3_000003_000013.mp4",
        "blowing nose/blow_nose-4_000003_000013.mp4",
    )
    annotations = [f"--annotations={root / name}" for name in ("train.csv", "val.csv")]
    return ["kinetics_sounds", f"--videos={root / 'videos'}", *annotations]


def make_audioset(root: Path, write_media: WriteMedia) -> list[str]:
    """Comments, a quoted list after comma and space, and every way in which files are called; one class has none."""
    comments = (
        "# Segments csv created Sun Mar  5 10:54:31 2017",
        "# num_ytids=2, num_segs=2, num_unique_labels=2, num_positive_labels=3",
        "# YTID, start_seconds, end_seconds, positive_labels",
    )
    folder = root / "annotations"
    write(
        folder / "balanced_train_segments.csv",
        *comments,
        '--PJHxphWEs, 30.000, 40.000, "/m/09x0r,/t/dd00088"',
        '--ZhevVpy1s, 50.000, 60.000, "/m/09x0r"',
        '--gone_gone, 0.000, 10.000, "/m/09x0r"',
    )
    write(
        folder / "unbalanced_train_segments.csv",
        *comments,
        '---1_cCGK4M, 0.000, 10.000, "/m/05zppz,/m/09x0r"',
        '--2_BBVHAA0, 30.500, 40.500, "/t/dd00088"',
        '--3_start_s, 7.000, 17.000, "/t/dd00088"',
    )
    write(
        folder / "eval_segments.csv",
        *comments,
        '--4gqARaEJE, 0.000, 9.000, "/m/05zppz"',
        '--5_digits6, 7.000, 17.000, "/t/dd00088"',
        '--6_fraction, 7.000, 17.000, "/t/dd00088"',
    )
    write(
        folder / "class_labels_indices.csv",
        "index,mid,display_name",
        "0,/m/09x0r,Speech",
        '1,/m/05zppz,"Male speech, man speaking"',
        "2,/t/dd00088,Gush",
        "3,/m/07qlf79,Spray",
    )
    write_all(
        root / "media",
        write_media,
        "balanced/--PJHxphWEs.wav",
        "balanced/Y--ZhevVpy1s.wav",
        "unbalanced/---1_cCGK4M_0_10.mp4",
        "unbalanced/--2_BBVHAA0_30500_40500.mp4",
        "unbalanced/--3_start_s_7.mp4",
        "eval/--4gqARaEJE_0_9000.flac",
        "eval/--5_digits6_000007_000017.mp4",
        "eval/--6_fraction_7.000_17.000.mp4",
        "eval/other.mp4",
    )
    annotations = [f"--annotations={folder}", f"--class_labels={folder / 'class_labels_indices.csv'}"]
    return ["audioset", f"--videos={root / 'media'}", *annotations]


def make_vggsound(root: Path, write_media: WriteMedia) -> list[str]:
    """No header, a quoted label with commas, each way in which files are called, sound beside a video."""
    annotations = write(
        root / "vggsound.csv",
        "---g-f_I2yQ,1,people marching,test",
        "--0PQM4-hqg,30,waterfall burbling,train",
        '--Lj4Y_96f0,120,"bee, wasp, etc. buzzing",train',
        "--56QUhyDQM,185,playing tennis,train",
        "--bare_name,4,people marching,train",
    )
    write_all(
        root / "videos",
        write_media,
        "---g-f_I2yQ_000001.mp4",
        "--0PQM4-hqg_30000_40000.mp4",
        "bees/--Lj4Y_96f0_000120_000130.mp4",
        "audio/--bare_name.wav",
        "video/--bare_name.mp4",
    )
    return ["vggsound", f"--videos={root / 'videos'}", f"--annotations={annotations}"]


def make_ucf101(root: Path, write_media: WriteMedia) -> list[str]:
    """CRLF, three overlapping splits, files whose name spells their class in another way than their folder."""
    lists = root / "ucfTrainTestlist"
    eye, push = "ApplyEyeMakeup/v_ApplyEyeMakeup", "HandstandPushups/v_HandStandPushups"
    write(lists / "classInd.txt", "1 ApplyEyeMakeup", "2 HandstandPushups", newline="\r\n")
    write(lists / "trainlist01.txt", f"{eye}_g08_c01.avi 1", f"{push}_g09_c01.avi 2", f"{push}_g10_c01.avi 2")
    write(lists / "testlist01.txt", f"{eye}_g01_c01.avi", f"{push}_g01_c01.avi", newline="\r\n")
    write(lists / "trainlist02.txt", f"{eye}_g01_c01.avi 1", f"{push}_g01_c01.avi 2", newline="\r\n")
    write(lists / "testlist02.txt", f"{eye}_g08_c01.avi", f"{push}_g10_c01.avi", newline="\r\n")
    write(lists / "trainlist03.txt", f"{eye}_g01_c01.avi 1", f"{eye}_g08_c01.avi 1", newline="\r\n")
    write(lists / "testlist03.txt", f"{push}_g01_c01.avi", f"{push}_g10_c01.avi", newline="\r\n")
    write_all(
        root / "UCF-101",
        write_media,
        f"{eye}_g01_c01.avi",
        f"{eye}_g08_c01.avi",
        f"{eye}_g25_c07.avi",
        f"{push}_g01_c01.avi",
        "HandstandPushups/v_HandstandPushups_g09_c01.avi",
    )
    return ["ucf101", f"--videos={root / 'UCF-101'}", f"--annotations={lists}"]


def make_hmdb51(root: Path, write_media: WriteMedia) -> list[str]:
    """Spaces at the ends of lines, a name that starts with #, one name in two classes, files that no split uses."""
    lists = root / "testTrainMulti_7030_splits"
    brush = "April_09_brush_hair_u_nm_np1_ba_goo_0.avi"
    write(lists / "brush_hair_test_split1.txt", f"{brush} 1 ", "unused.avi 0 ", "same(1).avi 2 ", "gone.avi 1 ")
    write(lists / "brush_hair_test_split2.txt", f"{brush} 2 ", "unused.avi 0 ", "same(1).avi 1 ", "gone.avi 1 ")
    write(lists / "clap_test_split1.txt", "#20_Rhythm_clap_u_nm_np1_fr_goo_0.avi 1 ", "same(1).avi 1 ")
    write(lists / "clap_test_split2.txt", "#20_Rhythm_clap_u_nm_np1_fr_goo_0.avi 0 ", "same(1).avi 1 ")
    write_all(
        root / "videos",
        write_media,
        f"brush hair/{brush}",
        "brush hair/unused.avi",
        "brush hair/same(1).avi",
        "clap/#20_Rhythm_clap_u_nm_np1_fr_goo_0.avi",
        "clap/same(1).avi",
        "clap/extra.avi",
    )
    return ["hmdb51", f"--videos={root / 'videos'}", f"--annotations={lists}"]


def make_esc50(root: Path, write_media: WriteMedia) -> list[str]:
    """Three of the five folds, two clips of one recording, classes whose numbers are not in alphabetical order."""
    release = root / "ESC-50-master"
    write(
        release / "meta" / "esc50.csv",
        "filename,fold,target,category,esc10,src_file,take",
        "1-100032-A-0.wav,1,0,dog,True,100032,A",
        "1-100032-B-0.wav,1,0,dog,True,100032,B",
        "2-100038-A-14.wav,2,14,chirping_birds,False,100038,A",
        "3-100210-A-36.wav,3,36,airplane,False,100210,A",
        "3-gone-A-36.wav,3,36,airplane,False,gone,A",
    )
    names = ("1-100032-A-0", "1-100032-B-0", "2-100038-A-14", "3-100210-A-36", "5-unnamed-A-1")
    write_all(release / "audio", write_media, *(f"{name}.wav" for name in names))
    return ["esc50", f"--videos={release}"]


def make_charades(root: Path, write_media: WriteMedia) -> list[str]:
    """Quoted cells with commas, quotes and newlines, no actions, an action twice, an interval beyond the length."""
    header = "id,subject,scene,quality,relevance,verified,script,objects,descriptions,actions,length"
    folder = root / "Charades"
    write(
        folder / "Charades_v1_train.csv",
        header,
        '46GP8,HR43,Kitchen,6,7,Yes,"A person, cooking.","food;stove","One\nperson ""cooks"", then\n\nleaves.",'
        "c002 11.90 21.20;c000 0.00 12.60;c002 25.00 40.00,24.83",
        '-N11GT,HR43,Kitchen,6,,Yes,"A person.",food,"A\nperson.",,30.00',
        "GONE1,HR43,Kitchen,6,7,Yes,A person.,food,A person.,c001 0.00 1.00,30.00",
    )
    write(
        folder / "Charades_v1_test.csv",
        header,
        'YSKX3,AB12,Bedroom,7,7,No,Script,bed,"Text, more text",c001 0.00 7.60,31.00',
        newline="\r\n",
    )
    write(
        folder / "Charades_v1_classes.txt",
        "c000 Holding some clothes",
        "c001 Putting clothes somewhere",
        "c002 Taking some clothes from somewhere",
    )
    write(folder / "Charades_v1_verbclasses.txt", "v000 awaken")
    write_all(root / "videos", write_media, "46GP8.mp4", "-N11GT.mp4", "YSKX3.mp4", "OTHER.mp4")
    return ["charades", f"--videos={root / 'videos'}", f"--annotations={folder}"]


MAKERS = {
    "folder": make_folder,
    "folder with labels": make_folder_with_labels,
    "kinetics": make_kinetics,
    "kinetics of PySlowFast": make_pyslowfast,
    "kinetics_sounds": make_kinetics_sounds,
    "audioset": make_audioset,
    "vggsound": make_vggsound,
    "ucf101": make_ucf101,
    "hmdb51": make_hmdb51,
    "esc50": make_esc50,
    "charades": make_charades,
}
