"""Sheets of pictures: each picture is where its names say."""

import numpy as np

from pipelines.report.sheets import picture_sheet

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def plain(color: tuple[int, int, int], height: int = 10, width: int = 20) -> np.ndarray:
    return np.full((height, width, 3), color, np.uint8)


def test_pictures_stand_in_rows_with_gaps():
    sheet = np.asarray(picture_sheet([[plain(RED), plain(GREEN)], [plain(BLUE), plain(RED)]], gap=(4, 6)))
    assert sheet.shape == (32, 48, 3)
    for corner, color in {(0, 0): RED, (0, 24): GREEN, (16, 0): BLUE, (16, 24): RED}.items():
        row, column = corner
        assert (sheet[row : row + 10, column : column + 20] == color).all()
    assert (sheet[10:16] == 255).all() and (sheet[:, 20:24] == 255).all()


def test_pictures_are_resized_without_new_colours_unless_smooth():
    picture = np.concatenate([plain(RED, 4, 2), plain(BLUE, 4, 2)], 1)
    sharp, smooth = (
        np.asarray(picture_sheet([[picture]], size=(9, 9), gap=(0, 0), smooth=smooth)) for smooth in (False, True)
    )
    assert sharp.shape == smooth.shape == (9, 9, 3)
    assert {tuple(color) for color in sharp.reshape(-1, 3).tolist()} == {RED, BLUE}
    assert len(np.unique(smooth.reshape(-1, 3), axis=0)) > 2


def test_names_and_legend_have_room_of_their_own():
    pictures = [[plain(RED), plain(GREEN)]]
    sheet = np.asarray(
        picture_sheet(pictures, above=["one", "two"], beside=["row"], below=[["a", "b"], ["c"]], legend=[("sea", BLUE)])
    )
    bottom = 18 + 14 + 4 + 2 * 13
    assert sheet.shape == (bottom + 18, 130 + 48, 3)
    assert (sheet[18:28, 130:150] == RED).all() and (sheet[18:28, 154:174] == GREEN).all()
    assert (sheet[bottom + 1 : bottom + 11, 1:11] == BLUE).all()
    for part in (sheet[:18, 130:154], sheet[18:32, :130], sheet[30:bottom, 130:154], sheet[bottom:, 18:]):
        assert (part < 128).any(), "no text is there"
