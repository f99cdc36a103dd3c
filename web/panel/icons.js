// @ts-check
/** Paths of the icons, on a 24 × 24 grid. */

export const HEART =
  "M12 20.7 10.6 19.4C5.4 14.7 2 11.6 2 7.9 2 4.9 4.4 2.5 7.4 2.5c1.7 0 3.4.8 4.6 2.1 1.1-1.3 2.8-2.1 4.6-2.1 3 0 5.4 2.4 5.4 5.4 0 3.7-3.4 6.8-8.6 11.5z";
export const CROSS =
  "M18.3 4.3 12 10.6 5.7 4.3 4.3 5.7 10.6 12l-6.3 6.3 1.4 1.4 6.3-6.3 6.3 6.3 1.4-1.4-6.3-6.3 6.3-6.3z";
export const STAR = "m12 17.3 6.2 3.7-1.7-7 5.5-4.8-7.2-.6L12 2 9.2 8.6 2 9.2 7.5 14l-1.7 7z";
export const EXPAND = "M4 4h7v2H6v5H4zm9 0h7v7h-2V6h-5zM4 13h2v5h5v2H4zm14 0h2v7h-7v-2h5z";
export const BACK = "M9 5 3 11l6 6v-4.1h6a3.5 3.5 0 0 1 0 7h-3v2h3a5.5 5.5 0 0 0 0-11H9z";
export const PLAY = "M8 5v14l11-7z";
export const PREVIOUS = "m15.4 6.4-1.4-1.4-7 7 7 7 1.4-1.4L9.8 12z";
export const NEXT = "m8.6 17.6 1.4 1.4 7-7-7-7-1.4 1.4 5.6 5.6z";
export const CLOSE = CROSS;
