/* notes: lists the notes of a directory, writes one more, and reads it back. Shows that the root can be written to.
 *
 *   notes DIRECTORY
 */

#include <dirent.h>
#include <stdio.h>
#include <string.h>

static int show(const char *directory)
{
    DIR *notes = opendir(directory);
    int count = 0;
    if (!notes)
        return -1;
    for (struct dirent *note; (note = readdir(notes));)
        if (note->d_name[0] != '.' && ++count)
            printf("notes: %s/%s\n", directory, note->d_name);
    closedir(notes);
    return count;
}

int main(int argc, char **argv)
{
    char path[512], text[64] = "";
    FILE *note;
    if (argc != 2 || show(argv[1]) < 0) {
        printf("usage: notes DIRECTORY, which must be there\n");
        return 2;
    }
    snprintf(path, sizeof path, "%s/second.txt", argv[1]);
    if ((note = fopen(path, "w"))) {
        fputs("the second note", note);
        fclose(note);
    }
    if ((note = fopen(path, "r"))) {
        if (!fgets(text, sizeof text, note))
            text[0] = '\0';
        fclose(note);
    }
    if (strcmp(text, "the second note") != 0) {
        printf("notes: %s cannot be written\n", path);
        return 1;
    }
    printf("notes: %d notes, and all is well\n", show(argv[1]));
    return 0;
}
